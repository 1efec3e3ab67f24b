"""A run with a fault in it; for the matrix, a short one on a tiny model with real tensors and a simulated card."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

from memory_harness.configs.errors import ConfigError
from memory_harness.configs.preset import load_preset
from memory_harness.configs.schema import RunConfig
from memory_harness.configs.strategies import capabilities_of
from memory_harness.configs.units import format_bytes
from memory_harness.harness.data.batching import eval_batches
from memory_harness.harness.data.prepare import Prepared, prepare
from memory_harness.harness.devices.base import ObservableDevice
from memory_harness.harness.log.records import Outcome, Record, RunRecord
from memory_harness.harness.log.runlog import RunLog, collect
from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.harness.train.execute import execute
from memory_harness.harness.train.loop import num_steps, steps_per_epoch
from memory_harness.harness.train.run import Run, open_device
from memory_harness.probes.faults.base import Fault

MAX_TRACED_BATCHES = 400
"""Most batches that a run on fake tensors takes through PyTorch one by one: some 3 s each for 8B, on 2 cores."""


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
    records: list[Record] = []
    with TemporaryDirectory() as folder:
        execute_with(fault, config, open_device(config), data, records.append, Path(folder))
    return collect(records)


@lru_cache(maxsize=8)
def _prepared(config: RunConfig) -> Prepared:
    """Return the data of a configuration without what has no influence on it, so that many runs share them."""
    return prepare(config)


def execute_with(
    fault: Fault,
    config: RunConfig,
    device: ObservableDevice,
    data: Prepared,
    write: Callable[[Record], None],
    output: Path,
) -> Outcome:
    """Run with the mistake in it; the fault has configured the run and prepared the data."""

    def named(record: Record) -> None:
        write(replace(record, fault=fault.name) if isinstance(record, RunRecord) else record)

    def run(
        config: RunConfig, device: ObservableDevice, write: Callable[[Record], None], output: Path, resume: Path | None
    ) -> Outcome:
        strategy = QLoraStrategy(config, device)
        with fault.install(strategy) or nullcontext():
            return execute(Run(config, device, strategy, data), write, output, resume=resume)

    if not fault.resumes:
        return run(config, device, named, output, None)
    with TemporaryDirectory() as folder:
        earlier = config.with_fields(max_steps=1, save_every=1, eval_every=2)
        run(earlier, open_device(config), lambda record: None, Path(folder), None)
        return run(config, device, named, output, Path(folder) / "checkpoint-1")


def check_plantable(
    fault: Fault, given: RunConfig, config: RunConfig, data: Prepared, device: ObservableDevice
) -> None:
    """Refuse a run that the fault cannot be planted in.

    Args:
        fault: whose name is told.
        given: the configuration as the user wrote it.
        config: the same as the fault has changed it.
        data: what it trains on.
        device: where it would run.

    Raises:
        ConfigError: what is in the way, and the flags that remove it.
    """
    tiny, budget = "--preset smoke_cpu", config.device.budget_bytes
    if budget is not None and budget != given.device.budget_bytes and given.model.model != "tiny-llama":
        size = format_bytes(budget)
        raise ConfigError(f"--fault {fault.name}: sets --budget to {size}, for the tiny model; use {tiny}")
    if not capabilities_of(config).is_plantable:
        raise ConfigError(f"--fault {fault.name}: --strategy {config.model.strategy} takes no mistakes; use qlora")
    if config.device.engine == "split":
        raise ConfigError(f"--fault {fault.name}: cannot be planted with --sharding split; give --num-gpus 1")
    if fault.needs_values and not device.computes:
        raise ConfigError(f"--fault {fault.name}: needs tensors with values; use {tiny}")
    if fault.needs_simulation and device.source == "cuda":
        raise ConfigError(f"--fault {fault.name}: cannot be planted on a real GPU; use --device simulated")
    batches = _num_batches(config, data)
    if batches > MAX_TRACED_BATCHES and not device.computes:
        raise ConfigError(
            f"--fault {fault.name}: {batches} batches would go through PyTorch one by one (allowed: "
            f"{MAX_TRACED_BATCHES}), as a run with a mistake in it is not replayed; give fewer with --max-steps and "
            f"--samples, or use {tiny}"
        )


def _num_batches(config: RunConfig, data: Prepared) -> int:
    """Return the micro-batches and evaluation batches of a run."""
    steps = num_steps(config, data)
    evaluations = steps // (config.eval.eval_every or steps_per_epoch(config, data))
    return steps * config.train.gradient_accumulation + evaluations * len(eval_batches(data.eval, config))
