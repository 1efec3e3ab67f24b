"""A short run with a fault, on a tiny model with real tensors and a simulated card."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

from configs.models import find_model
from configs.preset import load_preset
from configs.schema import RunConfig
from harness.data import Prepared, prepare
from harness.records import Record
from harness.run import execute, open_device
from harness.runlog import RunLog, collect
from harness.strategies.qlora import QLoraStrategy
from probes.faults.base import Fault


def tiny_config() -> RunConfig:
    """Return a run of two epochs of 12 steps, one sequence each, that takes a CPU about two seconds."""
    return load_preset("smoke_cpu").with_fields(
        samples=16,
        max_length=64,
        train_batch_size=1,
        gradient_accumulation=1,
        eval_batch_size=1,
        eval_fraction=0.25,
        generate_prompts=0,
    )


def run_with(fault: Fault, config: RunConfig) -> RunLog:
    """Return the log of a run with the fault; its checkpoints are thrown away."""
    config = fault.configure(config)
    data = fault.prepare(_prepared(replace(RunConfig(), model=config.model, data=config.data, eval=config.eval)))
    with TemporaryDirectory() as folder:
        output = Path(folder)
        if not fault.resumes:
            return _run(fault, config, data, output, None)
        _run(fault, config.with_fields(max_steps=1, save_every=1), data, output, None)
        return _run(fault, config, data, output, output / "checkpoint-1")


@lru_cache(maxsize=8)
def _prepared(config: RunConfig) -> Prepared:
    """Return the data of a configuration without what has no influence on it, so that many runs share them."""
    return prepare(config, find_model(config.model.model).vocab_size)


def _run(fault: Fault, config: RunConfig, data: Prepared, output: Path, resume: Path | None) -> RunLog:
    strategy = QLoraStrategy(config, open_device(config))
    records: list[Record] = []
    with fault.install(strategy):
        execute(config, strategy.device, strategy, data, records.append, output, resume=resume)
    return collect(records)
