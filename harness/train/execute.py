"""One run from its first record to its outcome."""

import gc
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from memory_harness.configs.errors import ConfigError, HarnessError, reason_of
from memory_harness.configs.models import find_model, is_local_checkpoint
from memory_harness.harness.log.environment import environment
from memory_harness.harness.log.errors import DeviceOutOfMemory, GradientError, LogError
from memory_harness.harness.log.manifest import START, Position
from memory_harness.harness.log.records import EndRecord, Outcome, Phase, Record, RunRecord, SegmentRuns
from memory_harness.harness.observe.recorder import PhaseRecorder
from memory_harness.harness.strategies.base import Strategy
from memory_harness.harness.train.loop import answer_prompts, load, num_steps, steps_per_epoch, train
from memory_harness.harness.train.recovery import Unprotected, catch_out_of_memory, run_collectively
from memory_harness.harness.train.rehearsal import rehearse
from memory_harness.harness.train.rng import seed_all
from memory_harness.harness.train.run import Run


@dataclass(frozen=True)
class Ending:
    """How a run ended."""

    outcome: Outcome
    message: str = ""


def execute(
    run: Run[Strategy],
    write: Callable[[Record], None],
    output: Path,
    resume: Path | None = None,
    rehearsal: bool = False,
) -> Outcome:
    """Run the loop until it ends, memory does not suffice or gradients train nothing; write every record.

    Args:
        output: folder for checkpoints.
        resume: folder of a checkpoint whose adapter and optimizer the run starts from.
        rehearsal: run the short version instead, see `harness.train.rehearsal`.

    Raises:
        Whatever is not a lack of memory, after an end record has been written.
    """
    protection = Unprotected(run, output)

    def body(recorder: PhaseRecorder) -> Ending:
        if resume is not None:
            with recorder.phase(Phase.RESUME):
                run.strategy.restore(resume)
        if rehearsal:
            rehearse(run, recorder, output, protection)
        else:
            train(run, recorder, protection)
            answer_prompts(run, recorder, protection)
        return Ending(Outcome.COMPLETED)

    return record_run(run, write, body)


def record_run(
    run: Run[Strategy],
    write: Callable[[Record], None],
    body: Callable[[PhaseRecorder], Ending],
    start: Position = START,
) -> Outcome:
    """Load the model and run `body` on the device, between the first record of a log and the last.

    Args:
        body: all that comes after LOAD.
        start: where the run begins, or is resumed.

    Raises:
        Whatever is not a lack of memory, after an end record has been written.
    """
    begin = time.perf_counter()
    recorder = _recorder_at(start, run, write)
    run_record = _run_record(run)
    write(run_record)
    ending = Ending(Outcome.OOM)

    def load_and_run() -> None:
        nonlocal ending
        seed_all(run.config.data.seed)
        with run.device.active():
            _load(run, recorder, run_record)
            try:
                ending = body(recorder)
            except GradientError as error:
                ending = Ending(Outcome.ERROR, str(error))

    try:
        failure = catch_out_of_memory(run.device, load_and_run)
    except Exception as error:
        with suppress(LogError):  # it may be what went wrong
            write(EndRecord(Outcome.ERROR, recorder.step, time.perf_counter() - begin, repr(error)))
        if _is_of_the_folder(error, run, recorder.step - start.step):
            raise _unusable_model(run, recorder, error) from error
        raise
    segments = _end(recorder, failure)
    write(EndRecord(ending.outcome, recorder.step, time.perf_counter() - begin, ending.message, segments))
    return ending.outcome


def _is_of_the_folder(error: Exception, run: Run[Strategy], steps: int) -> bool:
    """Return whether a run on somebody's own model folder has failed before its first step was over."""
    if isinstance(error, (HarnessError, OSError)) or steps > 1:
        return False
    return is_local_checkpoint(run.config.model.model)


def _unusable_model(run: Run[Strategy], recorder: PhaseRecorder, error: Exception) -> ConfigError:
    phase = recorder.running_phase.phase if recorder.running_phase else Phase.LOAD
    return ConfigError(
        f"--model {run.config.model.model}: {phase} fails with what is in this folder ({type(error).__name__}: "
        f"{reason_of(error)}); compare its config.json, weights and tokenizer with the model's own"
    )


def _recorder_at(start: Position, run: Run[Strategy], write: Callable[[Record], None]) -> PhaseRecorder:
    recorder = PhaseRecorder(run.device, write)
    recorder.step = start.step
    recorder.epoch = start.epoch if start.step else 0
    recorder.vocab_size = find_model(run.config.model.model).vocab_size
    return recorder


def _load(run: Run[Strategy], recorder: PhaseRecorder, run_record: RunRecord) -> None:
    """Load the model on all GPUs, and write the run's record again, with what is known of the model now."""
    try:
        loaded = run_collectively(recorder, lambda: load(run.strategy, recorder))
    except Exception:
        if run.strategy.planned is not None:  # it says what there was no room for
            recorder.write(replace(run_record, model=run.strategy.planned))
        raise
    rank = run.device.group.rank
    if rank:  # the same weights everywhere, but no two GPUs drop out the same
        seed_all(run.config.data.seed + (rank << 32))
    recorder.write(replace(run_record, model=loaded))


def _end(recorder: PhaseRecorder, failure: DeviceOutOfMemory | None) -> tuple[SegmentRuns, ...]:
    """Record what is left and what ended the run; return the segments at the peak of one that did not fail."""
    recorder.end_run()
    recorder.probe("gc", gc.collect)
    recorder.probe("autocast_cache", torch.clear_autocast_cache)
    if failure is not None:
        recorder.out_of_memory(failure)
        return ()
    recorder.probe("cached_blocks", recorder.device.empty_cache)
    return tuple(recorder.device.segments_at_peak())


def _run_record(run: Run[Strategy]) -> RunRecord:
    config, device, data = run.config, run.device, run.data
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
        rows_left_out=data.left_out,
        environment=environment(),
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        has_plain_data=data.is_plain,
        gpu_peaks=device.gpu_peaks,
        id=secrets.token_hex(6),
    )
