"""A training run in a folder of its own: started once, resumed as often as need be.

The folder holds `config.json`, for `--resume`; `run.jsonl`, the log, whose records after the last checkpoint are moved
to `run.lost-N.jsonl` when a killed run is resumed; `checkpoint-STEP` folders, see `harness.train.checkpoint`; and
`run.lock`, which a process holds while it trains. Of several GPUs the first does all that; each other one keeps a log
of its own, `run.rankN.jsonl`.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import AcquireReturnProxy

from memory_harness.configs.schema import RunConfig
from memory_harness.harness.data.prepare import Prepared
from memory_harness.harness.log.environment import environment
from memory_harness.harness.log.errors import CheckpointError, HarnessError, LogError
from memory_harness.harness.log.files import sweep_folder, write_whole
from memory_harness.harness.log.locks import LockHeld, lock
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
from memory_harness.harness.log.runlog import LogWriter, RunLog, cut_log, read_run_log
from memory_harness.harness.observe.recorder import PhaseRecorder
from memory_harness.harness.strategies.base import TrainableStrategy
from memory_harness.harness.train.checkpoint import restore_checkpoint
from memory_harness.harness.train.execute import Ending, record_run
from memory_harness.harness.train.loop import train
from memory_harness.harness.train.other_cards import OtherCards
from memory_harness.harness.train.recovery import Protection, Recovery, run_collectively
from memory_harness.harness.train.run import Run


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Within, what keeps the run's folder from being written becomes a CheckpointError of one line."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise CheckpointError(f"{folder}: cannot be written ({reason}); make room, or give another --output") from None


def locked(folder: Path) -> AcquireReturnProxy:
    """Hold the run's folder, which is made where it is missing, to the end of a `with` or of the process.

    Raises:
        CheckpointError: another process trains into it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return lock(folder / LOCK_FILE, seconds=0)
    except LockHeld as error:
        raise CheckpointError(f"{folder}: {error} trains into this folder; wait for it, or give another") from None
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be written ({error.strerror}); give another --output") from None


def prepare_folder(folder: Path, config: RunConfig) -> None:
    """Begin a run in a locked folder; the log of one that was killed before its first checkpoint is set aside.

    Raises:
        CheckpointError: it holds a run already.
    """
    if checkpoints(folder):
        raise CheckpointError(f"{folder}: holds a run already; go on with --resume {folder}, or give another --output")
    if (folder / LOG_FILE).exists():
        (folder / LOG_FILE).rename(_free_name(folder, "run.lost", ".jsonl"))
    _write_config(folder, config)


def _write_config(folder: Path, config: RunConfig) -> None:
    write_whole(folder / CONFIG_FILE, json.dumps(config.to_dict(), indent=1) + "\n")


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


def set_aside(folder: Path, manifest: Manifest, num_ranks: int = 1) -> None:
    """Make a folder end at a checkpoint: later records go to `run.lost-N.jsonl`, later checkpoints get another name.

    Args:
        num_ranks: GPUs that go on; the logs of further ones, which do not, get another name too.
    """
    for later in checkpoints(folder):
        if int(later.name.partition("-")[2]) > manifest.position.step:
            later.rename(_free_name(folder, f"superseded-{later.name}"))
    if (folder / LOG_FILE).exists():
        cut_log(folder / LOG_FILE, manifest.log_bytes, _free_name(folder, "run.lost", ".jsonl"))
    rank = num_ranks
    while (log := folder / PEER_LOG_FILE.format(rank=rank)).exists():
        log.rename(_free_name(folder, f"run.lost-rank{rank}", ".jsonl"))
        rank += 1


def _log_before(folder: Path, saved: Manifest) -> RunLog | None:
    """Return the log up to a checkpoint; None where there is none any more."""
    try:
        return read_run_log(folder / LOG_FILE, "--resume", saved.log_bytes)
    except LogError:
        return None


def _resumed_record(record: RunRecord, earlier: RunLog | None) -> RunRecord:
    """Return the record of a process, with the id, the beginning and the time of those before it."""
    if earlier is None:
        return record
    seconds = sum(phase.seconds for phase in earlier.phases)
    return replace(
        record,
        id=earlier.run.id,
        started_at=earlier.run.started_at,
        resumed_at=record.started_at,
        seconds_before=seconds,
    )


def _where(folder: Path, step: int) -> str:
    """Return the checkpoint of a step, or what there is where a full disk has cost that."""
    newest = checkpoints(folder)[-1].name
    if newest == f"checkpoint-{step}":
        return newest
    return f"step {step}, of which there is no checkpoint, but {newest}"


def _free_name(folder: Path, stem: str, suffix: str = "") -> Path:
    number = 1
    while (path := folder / f"{stem}-{number}{suffix}").exists():
        number += 1
    return path


def data_digest(data: Prepared) -> str:
    """Return a checksum of the prepared samples, in their order."""
    digest = hashlib.sha256()
    for example in (*data.train, *data.eval):
        for sequence in example.sequences:
            digest.update(repr((sequence.num_tokens, sequence.num_prompt_tokens, sequence.input_ids)).encode())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Hooks:
    """What goes on beside a training run, on its way and at its end."""

    on_record: Callable[[Record], None]
    """takes each record, after the log"""
    stop_signal: Callable[[], str]
    """returns the name of the signal that asks to stop; empty while none does"""
    finish: Callable[[PhaseRecorder, Protection], bool]
    """runs on the device after the last step, within the log; returns whether it got to its end"""
    on_begin: Callable[[PhaseRecorder], None] = lambda recorder: None
    """runs on the device before the first step that is left, once the log ends where the run goes on"""


@dataclass(frozen=True)
class Resumed:
    """The checkpoint that a run goes on from."""

    checkpoint: Path
    manifest: Manifest


def train_run(
    folder: Path,
    run: Run[TrainableStrategy],
    hooks: Hooks,
    *,
    gate_reason: str,
    resume: Path | None,
    allow_changes: bool = False,
) -> Outcome:
    """Train into a folder, from the beginning or from a checkpoint, until the end or until a stop is asked for.

    Args:
        gate_reason: the probe that passed, or that there was none; for the log.
        resume: the run's folder, or one of its checkpoints.
        allow_changes: go on although configuration or corpus have changed.

    Raises:
        CheckpointError: the folder is in use or not usable, or its disk is full: the last checkpoint stays.
        Whatever else ends the run, after an end record has been written.
    """
    rank = run.device.group.rank
    log_file = folder / (PEER_LOG_FILE.format(rank=rank) if rank else LOG_FILE)
    with (
        locked(folder) if rank == 0 else nullcontext(),
        LogWriter(log_file, is_open=False) as log,
        closing(OtherCards(run.device, folder)) as cards,
    ):
        if rank == 0:
            sweep_folder(folder)
        else:  # on another host it may lie on another disk
            folder.mkdir(parents=True, exist_ok=True)
        digest = data_digest(run.data)
        if resume is None:
            resumed, start, earlier = None, START, None
            with _disk_errors(folder):
                if rank == 0:
                    prepare_folder(folder, run.config)
                log.open()
                cards.open()
        else:
            checkpoint = newest_checkpoint(resume)
            resumed = Resumed(checkpoint, check_resume(run.config, digest, checkpoint, allow_changes=allow_changes))
            start, earlier = resumed.manifest.position, _log_before(folder, resumed.manifest)
        manifest = Manifest(start, run.config.to_dict(), run.config.fingerprint(), digest, environment())

        def write(record: Record) -> None:
            if isinstance(record, RunRecord):
                record = _resumed_record(replace(record, let_in_by=gate_reason), earlier)
            log.write(record)
            cards.write(record)
            hooks.on_record(record)

        return _Training(folder, run, hooks, log, cards, manifest, resumed).execute(write)


@dataclass(frozen=True)
class _Training:
    """A training run in its locked folder, from the checkpoint that it begins with to its end."""

    folder: Path
    run: Run[TrainableStrategy]
    hooks: Hooks
    log: LogWriter
    cards: OtherCards
    manifest: Manifest
    """of its checkpoints; the position is where it begins"""
    resumed: Resumed | None
    """where it goes on from; None where it begins"""

    def execute(self, write: Callable[[Record], None]) -> Outcome:
        """Run it between the first record and the last; return how it ended."""
        try:
            outcome = record_run(self.run, write, self._body, self.manifest.position)
        except LogError as error:
            raise CheckpointError(f"{error}, then go on with --resume {self.folder}") from None
        except HarnessError:
            raise  # refused: the log stays as it is
        except Exception:
            self.log.open()
            raise
        self.log.open()  # it may have ended before it was restored
        return outcome

    def _body(self, recorder: PhaseRecorder) -> Ending:
        start, group = self.manifest.position, self.run.device.group
        recovery = Recovery(
            self.run,
            recorder,
            self.folder,
            self.manifest,
            log_bytes=lambda: self.log.num_bytes,
            stop_requested=lambda: group.any(bool(self.hooks.stop_signal())),
        )
        if self.resumed is None:
            with _disk_errors(self.folder), recorder.phase(Phase.CHECKPOINT):
                recovery.write_checkpoint(start)  # a folder that refuses is better known now than in an hour
        else:
            self._restore(recorder, recovery, self.resumed)
        self.hooks.on_begin(recorder)
        if train(self.run, recorder, recovery, start) and self.hooks.finish(recorder, recovery):
            return Ending(Outcome.COMPLETED)
        signal = self.hooks.stop_signal() or "a signal"
        return Ending(Outcome.STOPPED, f"stopped by {signal} at {_where(self.folder, recorder.step)}")

    def _restore(self, recorder: PhaseRecorder, recovery: Recovery, resumed: Resumed) -> None:
        """Go back to the checkpoint; what came after it is touched only once that has worked."""
        rank = self.run.device.group.rank

        def restore() -> None:
            with recorder.phase(Phase.RESUME):
                restore_checkpoint(resumed.checkpoint, self.run.strategy.restore, rank)

        run_collectively(recorder, restore)
        with _disk_errors(self.folder):
            if rank == 0:
                set_aside(self.folder, resumed.manifest, self.run.config.device.num_gpus)
            self.log.open()
            self.cards.open()
            if self._has_changed(resumed.manifest):  # what was allowed once stays so
                with recorder.phase(Phase.CHECKPOINT):
                    recovery.save(self.manifest.position)
            if rank == 0:
                _write_config(self.folder, self.run.config)

    def _has_changed(self, saved: Manifest) -> bool:
        return bool(changed_fields(saved, self.run.config)) or saved.data_digest != self.manifest.data_digest
