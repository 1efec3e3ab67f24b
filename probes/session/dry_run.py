"""Run any script on a card that is not there, say what it would do on it, and which of its settings would help."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from memory_harness.configs.cards import Card
from memory_harness.configs.printable import printable
from memory_harness.configs.units import format_bytes
from memory_harness.harness.devices.dry_run import DryRunDevice
from memory_harness.harness.log.errors import HarnessError
from memory_harness.harness.log.records import (
    KnobRecord,
    Outcome,
    Phase,
    PhaseBegin,
    Record,
    StandInRecord,
)
from memory_harness.harness.log.remarks import quiet_imports
from memory_harness.harness.log.runlog import LogWriter, RunLog, read_run_log
from memory_harness.harness.observe.dry_run import DryRunObserver, DryRunOver
from memory_harness.harness.observe.knobs import LOADER, knobs_of_scripts
from memory_harness.harness.observe.notebook import skipped_lines
from memory_harness.harness.observe.run_script import run_script
from memory_harness.harness.simulate.facade.dispatch import AllCards
from memory_harness.harness.simulate.layer_replay import CannotReplay
from memory_harness.probes.findings import Equivalence, FixResult
from memory_harness.probes.session.watch import end_of

SECONDS_BETWEEN_LINES = 10.0

VARIABLE = "MEMORY_HARNESS_DRY_RUN"
"""set in the environment while a script is run dry, for scripts that want to know"""


@dataclass(frozen=True)
class DryRun:
    """What is to be run dry.

    Args:
        max_steps: optimizer steps after which it ends; None where nothing new comes.
        worst_first: the script's data loaders give their largest batches first.
        changes: settings of the script that are to be others; see `harness.observe.knobs`.
        snapshot: file for the memory where it ran out, or at the end.
        is_quiet: what the script prints is not shown.
        with_peak: the log says what lived at the peak.
        num_gpus: for which torchrun would start the script, a process on each; it is run as the first of them. Where
            it lays a model over all of them, it is run as the only process. Where the second has its memory on the
            first one's GPU, they share its budget out.
        rank: the one of these processes that it is run as.
        ranks_on_gpu: of them, those that have the first GPU; None where this run is to tell.
        beside_bytes: of each of them, what is left out of the budget for processes that talk.
        replays_layers: layers of libraries' models that repeat run once; where the script does with them what that
            does not bear, it is run again without.
        on_all_gpus: one process has all of them.
        told_gpu: the one of these whose memory is told of.
        gpu_peaks: what each of these would take; None where this run is to tell.
        is_limited: memory runs out beyond the budget.
    """

    script: str
    arguments: Sequence[str]
    card: Card
    budget_bytes: int
    expandable_segments: bool = False
    max_steps: int | None = None
    worst_first: bool = False
    changes: Mapping[str, Any] = field(default_factory=dict)
    snapshot: Path | None = None
    is_quiet: bool = False
    with_peak: bool = False
    num_gpus: int = 1
    rank: int = 0
    ranks_on_gpu: int | None = None
    beside_bytes: int = 0
    replays_layers: bool = True
    on_all_gpus: bool = False
    told_gpu: int = 0
    gpu_peaks: tuple[int, ...] | None = None
    is_limited: bool = True

    def run(self, log: Path) -> RunLog:
        """Run in a process of its own, which the script may leave as it likes; return what was recorded.

        Raises:
            HarnessError: the script asked for a value that does not exist without a GPU, or cannot be run dry.
        """
        # forked: what is imported here is not imported once more for each run
        with quiet_imports():
            import bitsandbytes  # noqa: F401
            import transformers.modeling_utils
            import transformers.training_args  # noqa: F401

        end = self._run_forked(log)
        if isinstance(end, CannotReplay):
            log.unlink()
            return replace(self, replays_layers=False).run(log)
        if isinstance(end, AllCards):
            log.unlink()
            whole = self.budget_bytes + self.beside_bytes
            return replace(self, on_all_gpus=True, budget_bytes=whole).run(log)
        if isinstance(end, HarnessError):
            raise HarnessError(str(end))
        if isinstance(end, _Taken) and len(end.peaks) > 1:
            self._tell_of_fullest(log, end)
        elif isinstance(end, _Taken) and self.num_gpus > 1 and self.ranks_on_gpu is None:
            self._tell_of_ranks(log, end)
        return read_run_log(log)

    def _tell_of_ranks(self, log: Path, taken: _Taken) -> None:
        """Let the log be that of a rank with what there is for it: less of a GPU that all share, more without NCCL."""
        settled = replace(self, is_quiet=True, ranks_on_gpu=1)
        if not taken.has_joined:
            alone = replace(settled, budget_bytes=self.budget_bytes + self.beside_bytes, beside_bytes=0)
            again = alone._run_anew(log)
            if isinstance(again, _Taken) and again.has_joined:  # memory had run out before
                settled._run_anew(log)
        elif self._second_has_first_gpu(log.with_suffix(".second")):
            share = self.budget_bytes // self.num_gpus
            replace(settled, budget_bytes=share, ranks_on_gpu=self.num_gpus)._run_anew(log)

    def _run_anew(self, log: Path) -> BaseException | _Taken | None:
        """Run in the place of the run that the log is of."""
        log.unlink()
        return self._run_forked(log)

    def _second_has_first_gpu(self, log: Path) -> bool:
        """Return whether the second rank has more on the first GPU than on its own, in the first step.

        The first rank's calls do not tell: `cuda:0` is right there, whether it is written out or made of the rank.
        """
        second = replace(self, rank=1, max_steps=1, is_quiet=True, is_limited=False, with_peak=False, snapshot=None)
        taken = second._run_forked(log)
        log.unlink()
        return isinstance(taken, _Taken) and not taken.chose_cards and taken.peaks[0] > taken.peaks[1]

    def _tell_of_fullest(self, log: Path, taken: _Taken) -> None:
        """Let the log be that of the GPU which ran out of memory, or else took most, and say what all of them take."""
        peaks, told = taken.peaks, taken.failed
        if told is None:
            told = peaks.index(max(peaks))
        else:
            peaks = replace(self, is_quiet=True, is_limited=False, snapshot=None)._peaks(log.with_suffix(".unlimited"))
        if (told, peaks) != (self.told_gpu, taken.peaks):
            log.unlink()
            replace(self, is_quiet=True, told_gpu=told, gpu_peaks=peaks)._run_forked(log)

    def _peaks(self, log: Path) -> tuple[int, ...]:
        """Return what each GPU would take; nothing where that cannot be seen."""
        taken = self._run_forked(log)
        log.unlink()
        return taken.peaks if isinstance(taken, _Taken) else ()

    def _run_forked(self, log: Path) -> BaseException | _Taken | None:
        """Return why the run could not go on, or what it took; None where it died without a word."""
        context = multiprocessing.get_context("fork")
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_run_and_tell, args=(self, log, sender))
        process.start()
        sender.close()
        try:
            end: BaseException | _Taken | None = receiver.recv()
        except EOFError:
            end = None
        process.join()
        return end


@dataclass(frozen=True)
class _Taken:
    """What a run took.

    Args:
        peaks: the most that was reserved of each GPU that the process had.
        failed: the one on which memory ran out.
        has_joined: it has met the other ranks that it was started with.
        chose_cards: it has left itself some cards by CUDA_VISIBLE_DEVICES.
    """

    peaks: tuple[int, ...]
    failed: int | None
    has_joined: bool
    chose_cards: bool


def _run_and_tell(dry_run: DryRun, log: Path, sender: Connection) -> None:
    torch.set_num_threads(1)  # those of the process that was forked are not here, and would be waited for
    if dry_run.is_quiet:
        _print_nothing()
    try:
        sender.send(_run(dry_run, log))
    except (CannotReplay, AllCards) as error:
        sender.send(error)
    except HarnessError as error:
        sender.send(HarnessError(str(error)))
    sender.close()


def _print_nothing() -> None:
    """Let nothing that this process writes be seen, by whatever code."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    sys.stdout = sys.stderr = os.fdopen(nowhere, "w")


class _Progress:
    """Says now and then how far a dry run is: the script's own output may say nothing for long."""

    def __init__(self, device: DryRunDevice) -> None:
        self._device = device
        self._said_at = time.monotonic()

    def on_step(self, num_steps: int) -> None:
        """Take that an optimizer step is over."""
        if time.monotonic() - self._said_at < SECONDS_BETWEEN_LINES:
            return
        self._said_at = time.monotonic()
        reserved = format_bytes(self._device.stats().reserved_bytes)
        print(f"dry run: {num_steps} optimizer steps, {reserved} reserved", file=sys.stderr, flush=True)


def _open_device(dry_run: DryRun) -> DryRunDevice:
    has_all = dry_run.on_all_gpus
    device = DryRunDevice(
        dry_run.card,
        dry_run.budget_bytes,
        expandable_segments=dry_run.expandable_segments,
        num_ranks=1 if has_all else dry_run.num_gpus,
        rank=dry_run.rank,
        num_cards=dry_run.num_gpus if has_all or dry_run.rank else 1,
        told=dry_run.told_gpu,
    )
    device.replays_layers = dry_run.replays_layers
    if not dry_run.is_limited:
        device.without_limit()
    return device


def _run(dry_run: DryRun, log: Path) -> _Taken:
    device = _open_device(dry_run)
    begin = time.perf_counter()
    with LogWriter(log) as writer, patch.dict(os.environ, {VARIABLE: "1"}):
        snapshot = _Snapshot(dry_run.snapshot, device, log)
        if dry_run.with_peak:
            device.watch_peak()
        write = _phases_told(device, writer.write) if dry_run.with_peak else writer.write
        observer = DryRunObserver(
            device,
            write,
            Path(dry_run.script).name,
            dry_run.max_steps,
            worst_first=dry_run.worst_first,
            ranks_on_gpu=dry_run.ranks_on_gpu or 1,
            on_step=_Progress(device).on_step,
            on_failure=snapshot.write,
        )
        outcome, message = Outcome.COMPLETED, ""
        try:
            with knobs_of_scripts(dry_run.changes, writer.write), observer.running():
                main = run_script(dry_run.script, dry_run.arguments)
            observer.end_script()
            del main
        except DryRunOver:
            observer.end_script()
        except AllCards:
            raise
        except BaseException as error:
            if isinstance(error, HarnessError) and device.as_out_of_memory(error) is None:
                raise
            outcome, message = end_of(error, device)
        snapshot.write()
        # a script may have caught these
        if device.tracer.wants_all_cards:
            raise AllCards
        if device.layers.failure is not None:
            raise device.layers.failure
        if device.tracer.stand_ins.failure is not None:
            raise device.tracer.stand_ins.failure
        if outcome is Outcome.COMPLETED and not device.tracer.has_allocated:
            outcome, message = Outcome.ERROR, "nothing of the script ran on the card"
        if outcome is Outcome.COMPLETED and (dry_run.ranks_on_gpu or 1) > 1 and device.tracer.joins_by_nccl:
            outcome, message = Outcome.ERROR, f"all {dry_run.ranks_on_gpu} ranks lie on GPU 0, which NCCL refuses"
        if device.num_ranks > 1 and not device.tracer.has_joined:
            alone = f"it never joins other ranks: each of {device.num_ranks} would train by itself"
            writer.write(StandInRecord(alone, Path(dry_run.script).name, 1))
        for skipped in skipped_lines(dry_run.script):
            writer.write(skipped)
        for (what, where), count in device.tracer.stand_ins.used.items():
            writer.write(StandInRecord(what, where, count))
        peaks = tuple(stats.peak_reserved_bytes for stats in device.stats_of_run())
        if device.tracer.num_cards > 1:
            observer.tell_of_gpus(peaks if dry_run.gpu_peaks is None else dry_run.gpu_peaks)
        observer.end_log(outcome, message or observer.stopped_because, time.perf_counter() - begin)
        if dry_run.with_peak:
            for part in device.peak_parts(read_run_log(log)):
                writer.write(part)
        failed = device.failed if outcome is Outcome.OOM else None
        return _Taken(peaks, failed, device.tracer.has_joined, device.tracer.chose_cards)


def _phases_told(device: DryRunDevice, write: Callable[[Record], None]) -> Callable[[Record], None]:
    """Return what takes the records of a run, and lets what is made from a phase's begin on be said to be its."""

    def write_and_tell(record: Record) -> None:
        if isinstance(record, PhaseBegin):
            device.name_category(f"made in {record.phase}")
        write(record)

    return write_and_tell


class _Snapshot:
    """Writes the memory to the file that is asked for: as it is when an allocation fails first, or at the end."""

    def __init__(self, path: Path | None, device: DryRunDevice, log: Path) -> None:
        self._path = path
        self._device = device
        self._log = log
        if path is not None:
            device.record_history()

    def write(self) -> None:
        """Write it, the first time."""
        path, self._path = self._path, None
        if path is not None:
            self._device.write_history(path, read_run_log(self._log).run)


@dataclass(frozen=True)
class _Try:
    """A change of a script's settings that may help.

    Args:
        line: what to write into the script.
    """

    changes: Mapping[str, Any]
    line: str
    equivalence: Equivalence


def try_settings(dry_run: DryRun, recorded: RunLog, folder: Path) -> list[FixResult]:
    """Run again with each of the script's settings that may let it fit, one at a time; return what came of it."""
    if recorded.fatal_oom is None:
        return []
    results = []
    for number, attempt in enumerate(_tries(recorded, recorded.fatal_oom.phase), 1):
        again = replace(
            dry_run,
            changes={**dry_run.changes, **attempt.changes},
            expandable_segments=dry_run.expandable_segments or not attempt.changes,
            snapshot=None,
            is_quiet=True,
            on_all_gpus=bool(recorded.run.gpu_peaks),
            ranks_on_gpu=recorded.run.ranks_on_gpu,
            budget_bytes=recorded.run.budget_bytes,
        )
        print(printable(f"dry run: trying {attempt.line}"), file=sys.stderr, flush=True)
        log = again.run(folder / f"with-setting-{number}.jsonl")
        results.append(_result(attempt, recorded, log))
    return results


def _result(attempt: _Try, before: RunLog, after: RunLog) -> FixResult:
    fits = after.outcome is Outcome.COMPLETED
    oom = after.fatal_oom
    return FixResult(
        name=attempt.line,
        title="a setting of the script",
        addresses=(),
        equivalence=attempt.equivalence,
        verified=fits,
        before_peak_bytes=before.needed_bytes,
        after_peak_bytes=after.needed_bytes,
        applied=False,
        note="" if oom is None else f"memory runs out in {oom.phase}, step {oom.step}",
    )


def _tries(log: RunLog, phase: Phase) -> Iterator[_Try]:
    """Yield the changes that lower what the phase takes, those that change least first."""
    knobs = {knob.name: knob for knob in log.knobs}
    for name, value, phases, equivalence in _CHANGES:
        knob = knobs.get(name)
        if knob is None or phase not in phases or knob.value == str(value):
            continue
        changes = {name: value}
        text = f"{knob.where}: {name}={value!r} instead of {knob.value}"
        if name == "per_device_train_batch_size":
            changes["gradient_accumulation_steps"] = _steps_for_same_batch(knobs)
            text += f", and gradient_accumulation_steps={changes['gradient_accumulation_steps']}"
        yield _Try(changes, text, equivalence)
    yield from _shorter(knobs.get("max_length"))
    yield _Try({}, "PYTORCH_ALLOC_CONF=expandable_segments:True in the environment", "exact")


def _shorter(knob: KnobRecord | None) -> Iterator[_Try]:
    """Yield half of the length at which the script cuts its rows."""
    if knob is not None and knob.value.isdigit() and int(knob.value) > 1:
        half = int(knob.value) // 2
        yield _Try({"max_length": half}, f"{knob.where}: max_length={half} instead of {knob.value}", "data")


def _steps_for_same_batch(knobs: Mapping[str, Any]) -> int:
    steps = int(knobs["gradient_accumulation_steps"].value)
    return steps * int(knobs["per_device_train_batch_size"].value)


_TRAINING = (Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER)
_CHANGES: tuple[tuple[str, Any, tuple[Phase, ...], Equivalence], ...] = (
    ("per_device_eval_batch_size", 1, (Phase.EVAL,), "numerical"),
    ("eval_accumulation_steps", 1, (Phase.EVAL,), "exact"),
    ("gradient_checkpointing", True, _TRAINING, "numerical"),
    ("per_device_train_batch_size", 1, _TRAINING, "numerical"),
    (LOADER, 1, (*_TRAINING, Phase.EVAL), "data"),
    ("optim", "paged_adamw_8bit", _TRAINING, "data"),
)
"""setting, value, phases that it lowers, and what it changes of the result"""
