"""One run from a configuration to an outcome."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from memory_harness.configs.cards import Card, find_card
from memory_harness.configs.models import find_model
from memory_harness.configs.schema import RunConfig
from memory_harness.harness.data.prepare import Prepared
from memory_harness.harness.devices.base import Device
from memory_harness.harness.devices.cuda import CudaDevice
from memory_harness.harness.devices.parallel import Group
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.log.environment import environment
from memory_harness.harness.log.errors import GradientError, LogError
from memory_harness.harness.log.manifest import START, Position
from memory_harness.harness.log.records import EndRecord, ModelFacts, Outcome, Phase, Record, RunRecord
from memory_harness.harness.observe.recorder import PhaseRecorder
from memory_harness.harness.strategies import STRATEGIES
from memory_harness.harness.strategies.base import Strategy
from memory_harness.harness.strategies.compiled import CompiledStrategy
from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.harness.train.loop import answer_prompts, load, num_steps, steps_per_epoch, train
from memory_harness.harness.train.recovery import Unprotected, attempt, together
from memory_harness.harness.train.rehearsal import rehearse
from memory_harness.harness.train.rng import seed_all


def open_device(config: RunConfig, group: Group | None = None) -> Device:
    """Return the device that the configuration asks for.

    Args:
        group: the GPUs of the run; without it, one of those configured takes its share and the others are not there.

    Raises:
        DeviceError: it is not to be had.
    """
    card = find_card(config.device.gpu)
    wanted = config.device.device
    if wanted == "cuda" or (wanted == "auto" and torch.cuda.is_available()):
        return CudaDevice(
            card,
            config.device.budget_bytes or card.budget_bytes,
            attention=config.model.attention,
            expandable_segments=config.device.expandable_segments,
            group=group or share_of(config),
        )
    return simulate_card(config, card, group)


def share_of(config: RunConfig) -> Group:
    """Return the first of the configured GPUs, which has the longest batches and never fewer than others."""
    return Group(0, config.device.num_gpus)


def simulate_card(config: RunConfig, card: Card, group: Group | None = None) -> SimulatedDevice:
    """Return a simulation of the card, with the configuration's settings."""
    return SimulatedDevice(
        card,
        config.device.budget_bytes or card.budget_bytes,
        computes=config.device.tensors == "real",
        expandable_segments=config.device.expandable_segments,
        attention=config.model.attention,
        group=group or share_of(config),
    )


def make_strategy(config: RunConfig, device: Device) -> Strategy:
    """Return the strategy; on a device that computes nothing, one that replays what it has once recorded."""
    strategy = STRATEGIES[config.model.strategy](config, device)
    if isinstance(device, SimulatedDevice) and not device.computes:
        assert isinstance(strategy, QLoraStrategy)
        return CompiledStrategy(strategy, device)
    return strategy


def execute(
    config: RunConfig,
    device: Device,
    strategy: Strategy,
    data: Prepared,
    write: Callable[[Record], None],
    output: Path,
    facts: ModelFacts | None = None,
    resume: Path | None = None,
    rehearsal: bool = False,
) -> Outcome:
    """Run the loop until it ends, memory does not suffice or gradients train nothing; write every record.

    Args:
        facts: of a model that is loaded already; None loads it.
        resume: folder of a checkpoint whose adapter and optimizer the run starts from.
        rehearsal: run the short version instead, see `harness.train.rehearsal`.

    Raises:
        Whatever is not a lack of memory, after an end record has been written.
    """
    protection = Unprotected(config, strategy, output)

    def body(recorder: PhaseRecorder) -> Ending:
        if resume is not None:
            with recorder.phase(Phase.RESUME):
                strategy.restore(resume)
        if rehearsal:
            rehearse(config, strategy, recorder, data, output, protection)
        else:
            train(config, strategy, device, recorder, data, protection)
            answer_prompts(config, strategy, recorder, data, protection)
        return Ending(Outcome.COMPLETED)

    return recorded(config, device, strategy, data, write, body, facts)


@dataclass(frozen=True)
class Ending:
    """How a run ended."""

    outcome: Outcome
    message: str = ""


def recorded(
    config: RunConfig,
    device: Device,
    strategy: Strategy,
    data: Prepared,
    write: Callable[[Record], None],
    body: Callable[[PhaseRecorder], Ending],
    facts: ModelFacts | None = None,
    start: Position = START,
) -> Outcome:
    """Load the model and run `body` on the device, between the first record of a log and the last.

    Args:
        body: all that comes after LOAD.
        facts: of a model that is loaded already; None loads it.
        start: where the run begins, or is resumed.

    Raises:
        Whatever is not a lack of memory, after an end record has been written.
    """
    begin = time.perf_counter()
    recorder = PhaseRecorder(device, write)
    recorder.step, recorder.epoch = start.step, start.epoch if start.step else 0
    recorder.vocab_size = find_model(config.model.model).vocab_size
    run_record = _run_record(config, device, data, facts)
    write(run_record)
    ending = Ending(Outcome.OOM)

    def run() -> None:
        nonlocal ending
        seed_all(config.data.seed)
        with device.active():
            if facts is None:
                loaded = together(recorder, lambda: load(strategy, recorder))
                if device.group.rank:  # the same weights everywhere, but no two GPUs drop out the same
                    seed_all(config.data.seed + (device.group.rank << 32))
                write(replace(run_record, model=loaded))
            try:
                ending = body(recorder)
            except GradientError as error:
                ending = Ending(Outcome.ERROR, str(error))

    try:
        failure = attempt(device, run)
    except Exception as error:
        with suppress(LogError):  # it may be what went wrong
            write(EndRecord(Outcome.ERROR, recorder.step, time.perf_counter() - begin, repr(error)))
        raise
    recorder.end_run()
    recorder.probe("gc", gc.collect)
    recorder.probe("autocast_cache", torch.clear_autocast_cache)
    if failure is not None:
        recorder.out_of_memory(failure)
    else:
        recorder.probe("cached_blocks", device.empty_cache)
    segments = () if failure is not None else tuple(device.segments_at_peak())
    write(EndRecord(ending.outcome, recorder.step, time.perf_counter() - begin, ending.message, segments))
    return ending.outcome


def _run_record(config: RunConfig, device: Device, data: Prepared, facts: ModelFacts | None) -> RunRecord:
    return RunRecord(
        source=device.source,
        config=config.to_dict(),
        fingerprint=config.fingerprint(),
        gpu_name=device.gpu_name,
        budget_bytes=device.budget_bytes,
        total_steps=num_steps(config, data),
        steps_per_epoch=steps_per_epoch(config, data),
        num_train_samples=len(data.train),
        num_eval_samples=len(data.eval),
        corpus=data.corpus_name,
        environment=environment(),
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        model=facts,
    )
