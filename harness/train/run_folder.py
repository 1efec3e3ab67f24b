"""A training run in a folder of its own: started once, resumed as often as need be.

The folder holds `config.json`, for `--resume`; `run.jsonl`, the log, whose records after the last checkpoint are moved
to `run.lost-N.jsonl` when a killed run is resumed; `checkpoint-STEP` folders, see `harness.train.checkpoint`; and
`run.lock`, which a process holds while it trains. Of several GPUs the first does all that; each other one keeps a log
of its own, `run.rankN.jsonl`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from memory_harness.configs.schema import RunConfig
from memory_harness.harness.data.prepare import Prepared
from memory_harness.harness.devices.base import Device
from memory_harness.harness.log.environment import environment
from memory_harness.harness.log.errors import CheckpointError, HarnessError, LogError
from memory_harness.harness.log.files import write_whole
from memory_harness.harness.log.manifest import (
    CONFIG_FILE,
    LOCK_FILE,
    LOG_FILE,
    PEER_LOG_FILE,
    START,
    Manifest,
    changed_fields,
    check_same_optimizer,
    check_same_run,
    checkpoints,
    newest_checkpoint,
    read_manifest,
)
from memory_harness.harness.log.records import Outcome, Phase, Record, RunRecord
from memory_harness.harness.log.runlog import HeldLog, RunLog, cut_log, read_run_log
from memory_harness.harness.observe.recorder import PhaseRecorder
from memory_harness.harness.strategies.base import TrainableStrategy
from memory_harness.harness.train.checkpoint import restore_checkpoint
from memory_harness.harness.train.loop import train
from memory_harness.harness.train.recovery import Protection, Recovery, together
from memory_harness.harness.train.run import Ending, recorded


@contextmanager
def _writing(run: Path) -> Iterator[None]:
    """Tell in one line what keeps the run's folder from being written."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise CheckpointError(f"{run}: cannot be written ({reason}); make room, or give another --output") from None


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the run's folder, which is made where it is missing; the lock ends with the process, however that ends.

    Raises:
        CheckpointError: another process trains into it, or it cannot be written.
    """
    lock = FileLock(run / LOCK_FILE, timeout=0)
    try:
        run.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise CheckpointError(f"{run}: another process trains into this folder; wait for it, or give another") from None
    except OSError as error:
        raise CheckpointError(f"{run}: cannot be written ({error.strerror}); give another --output") from None
    try:
        yield
    finally:
        lock.release()


def prepare_folder(run: Path, config: RunConfig) -> None:
    """Begin a run in a locked folder; the log of one that was killed before its first checkpoint is set aside.

    Raises:
        CheckpointError: it holds a run already.
    """
    if checkpoints(run):
        raise CheckpointError(f"{run}: holds a run already; go on with --resume {run}, or give another --output")
    if (run / LOG_FILE).exists():
        (run / LOG_FILE).rename(_free_name(run, "run.lost", ".jsonl"))
    _write_config(run, config)


def _write_config(run: Path, config: RunConfig) -> None:
    write_whole(run / CONFIG_FILE, json.dumps(config.to_dict(), indent=1) + "\n")


def check_resume(config: RunConfig, digest: str, checkpoint: Path, *, allow_changes: bool) -> Manifest:
    """Return the manifest of a checkpoint that the run may go on from.

    Args:
        digest: of the prepared samples, see `data_digest`.

    Raises:
        CheckpointError: the checkpoint is not whole, or of another configuration or corpus.
    """
    manifest = read_manifest(checkpoint)
    if not allow_changes:
        check_same_run(manifest, config, digest, checkpoint)
    check_same_optimizer(manifest, config, checkpoint)
    return manifest


def set_aside(run: Path, manifest: Manifest) -> None:
    """Make a folder end at a checkpoint: later records go to `run.lost-N.jsonl`, later checkpoints get another name."""
    for later in checkpoints(run):
        if int(later.name.partition("-")[2]) > manifest.position.step:
            later.rename(_free_name(run, f"superseded-{later.name}"))
    if (run / LOG_FILE).exists():
        cut_log(run / LOG_FILE, manifest.log_bytes, _free_name(run, "run.lost", ".jsonl"))


def _earlier(run: Path, saved: Manifest) -> RunLog | None:
    """Return the log up to a checkpoint; None where there is none any more."""
    try:
        return read_run_log(run / LOG_FILE, "--resume", saved.log_bytes)
    except LogError:
        return None


def _going_on(record: RunRecord, earlier: RunLog | None) -> RunRecord:
    """Return the record of a process, with the beginning and the time of those before it."""
    if earlier is None:
        return record
    seconds = sum(phase.seconds for phase in earlier.phases)
    return replace(record, started_at=earlier.run.started_at, resumed_at=record.started_at, seconds_before=seconds)


def _where(run: Path, step: int) -> str:
    """Return the checkpoint of a step, or what there is where a full disk has cost that."""
    newest = checkpoints(run)[-1].name
    return newest if newest == f"checkpoint-{step}" else f"step {step}, of which there is no checkpoint, but {newest}"


def _free_name(folder: Path, stem: str, suffix: str = "") -> Path:
    number = 1
    while (path := folder / f"{stem}-{number}{suffix}").exists():
        number += 1
    return path


def data_digest(data: Prepared) -> str:
    """Return a checksum of the prepared samples, in their order."""
    digest = hashlib.sha256()
    for example in (*data.train, *data.eval):
        digest.update(repr((example.num_tokens, example.num_prompt_tokens, example.input_ids)).encode())
    return digest.hexdigest()[:16]


def train_run(
    run: Path,
    config: RunConfig,
    device: Device,
    strategy: TrainableStrategy,
    data: Prepared,
    *,
    resume: Path | None,
    allow_changes: bool = False,
    let_in_by: str,
    also: Callable[[Record], None],
    stop: Callable[[], str],
    begun: Callable[[PhaseRecorder], None] = lambda recorder: None,
    finish: Callable[[PhaseRecorder, Protection], bool],
) -> Outcome:
    """Train into a folder, from the beginning or from a checkpoint, until the end or until a stop is asked for.

    Args:
        resume: the run's folder, or one of its checkpoints.
        allow_changes: go on although configuration or corpus have changed.
        let_in_by: the probe that passed, or that there was none; for the log.
        also: takes each record, after the log.
        stop: the name of the signal that asks to stop; empty while none does.
        begun: runs on the device before the first step that is left, once the log ends where the run goes on.
        finish: runs on the device after the last step, within the log; tells whether it got to its end.

    Raises:
        CheckpointError: the folder is in use or not usable, or its disk is full: the last checkpoint stays.
        Whatever else ends the run, after an end record has been written.
    """
    group = device.group
    log_file = run / (PEER_LOG_FILE.format(rank=group.rank) if group.rank else LOG_FILE)
    with locked(run) if group.rank == 0 else nullcontext(), closing(HeldLog(log_file)) as log:
        digest = data_digest(data)
        checkpoint = newest_checkpoint(resume) if resume is not None else None
        if checkpoint is None:
            saved, start = None, START
            with _writing(run):
                if group.rank == 0:
                    prepare_folder(run, config)
                log.open()
        else:
            saved = check_resume(config, digest, checkpoint, allow_changes=allow_changes)
            start = saved.position
        about = Manifest(start, config.to_dict(), config.fingerprint(), digest, environment())

        def body(recorder: PhaseRecorder) -> Ending:
            recovery = Recovery(
                config,
                device,
                strategy,
                recorder,
                run,
                about,
                start,
                log_bytes=lambda: log.num_bytes,
                stop_requested=lambda: group.any(bool(stop())),
            )
            if saved is None:
                with _writing(run), recorder.phase(Phase.CHECKPOINT):
                    recovery.write_checkpoint(start)  # a folder that refuses is better known now than in an hour
            else:
                restore(recorder, recovery, saved)
            begun(recorder)
            done = train(config, strategy, device, recorder, data, recovery, start) and finish(recorder, recovery)
            if not done:
                return Ending(Outcome.STOPPED, f"stopped by {stop() or 'a signal'} at {_where(run, recorder.step)}")
            return Ending(Outcome.COMPLETED)

        def restore(recorder: PhaseRecorder, recovery: Recovery, saved: Manifest) -> None:
            """Go back to the checkpoint; what came after it is touched only once that has worked."""
            saved_in = checkpoint
            assert saved_in is not None

            def go_back() -> None:
                with recorder.phase(Phase.RESUME):
                    restore_checkpoint(saved_in, strategy.restore, group.rank)

            together(recorder, go_back)
            with _writing(run):
                if group.rank == 0:
                    set_aside(run, saved)
                log.open()
                if changed_fields(saved, config) or saved.data_digest != digest:  # what was allowed once stays so
                    with recorder.phase(Phase.CHECKPOINT):
                        recovery.save(start)
                if group.rank == 0:
                    _write_config(run, config)

        earlier = None if saved is None else _earlier(run, saved)

        def write(record: Record) -> None:
            if isinstance(record, RunRecord):
                record = _going_on(replace(record, let_in_by=let_in_by), earlier)
            log.write(record)
            also(record)

        try:
            outcome = recorded(config, device, strategy, data, write, body, start=start)
        except LogError as error:
            raise CheckpointError(f"{error}, then go on with --resume {run}") from None
        except HarnessError:
            raise  # refused: the log stays as it is
        except Exception:
            log.open()
            raise
        log.open()  # it may have ended before it was restored
        return outcome
