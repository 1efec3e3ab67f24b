"""Writing and reading a run log: JSON lines, flushed per record, readable after a cut at any byte."""

from __future__ import annotations

import json
import os
import re
import sys
import typing
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from io import BufferedReader, FileIO
from operator import attrgetter
from pathlib import Path

import psutil

from memory_harness.configs.inputs import GZIP, check_regular, open_input, read_input
from memory_harness.configs.units import MIB, format_bytes
from memory_harness.harness.log.errors import LogError
from memory_harness.harness.log.files import write_whole
from memory_harness.harness.log.manifest import LOG_FILE, PEER_LOG_FILE
from memory_harness.harness.log.records import (
    SCHEMA_VERSION,
    AgreementRecord,
    DriverRecord,
    EndRecord,
    EvalRecord,
    KnobRecord,
    MemoryStats,
    MetricsRecord,
    OomRecord,
    Outcome,
    PeakPart,
    PeakRecord,
    Phase,
    PhaseBegin,
    PhaseRecord,
    PoolRecord,
    ProbeRecord,
    Record,
    RecoveryRecord,
    RetryRecord,
    RunRecord,
    StandInRecord,
    StepRecord,
    SurvivorRecord,
    record_from_json,
    record_to_dict,
    run_record_of,
)

MAX_LINE_BYTES = 64 * MIB
"""More than any record has: one with the segments of a large card takes some megabytes."""
MEMORY_PER_BYTE = 4
"""Bytes of memory that a byte of a log or a snapshot takes once it is read (tests/bench/big_snapshot.py)."""


@dataclass
class RunLog:
    """The records of one run, sorted by kind, in the order in which they were written."""

    run: RunRecord
    begins: list[PhaseBegin] = field(default_factory=list)
    phases: list[PhaseRecord] = field(default_factory=list)
    steps: list[StepRecord] = field(default_factory=list)
    evals: list[EvalRecord] = field(default_factory=list)
    metrics: list[MetricsRecord] = field(default_factory=list)
    ooms: list[OomRecord] = field(default_factory=list)
    retries: list[RetryRecord] = field(default_factory=list)
    survivors: list[SurvivorRecord] = field(default_factory=list)
    drivers: list[DriverRecord] = field(default_factory=list)
    pools: list[PoolRecord] = field(default_factory=list)
    peak_parts: list[PeakPart] = field(default_factory=list)
    peaks_seen: list[PeakRecord] = field(default_factory=list)
    probes: list[ProbeRecord] = field(default_factory=list)
    recoveries: list[RecoveryRecord] = field(default_factory=list)
    stand_ins: list[StandInRecord] = field(default_factory=list)
    knobs: list[KnobRecord] = field(default_factory=list)
    agreements: list[AgreementRecord] = field(default_factory=list)  # of a run with fixes: with those without each
    end: EndRecord | None = None
    num_unreadable_lines: int = 0

    def add(self, record: Record) -> None:
        """Sort in one more record; a `RunRecord` after the first one says more of the run, or that it goes on."""
        if isinstance(record, RunRecord):
            self.run, self.end = record, None
        elif isinstance(record, EndRecord):
            self.end = record
        else:
            getattr(self, _LISTS[type(record)]).append(record)

    @property
    def outcome(self) -> Outcome:
        """How the run ended; a log that was cut off counts as an error, unless memory had run out by then."""
        if self.end:
            return self.end.outcome
        return Outcome.OOM if self._ends_out_of_memory else Outcome.ERROR

    @property
    def _ends_out_of_memory(self) -> bool:
        """Whether the phase that began last went out of memory."""
        if not self.ooms or not self.begins:
            return False
        oom, begin = self.ooms[-1], self.begins[-1]
        return (oom.phase, oom.step, oom.micro_step) == (begin.phase, begin.step, begin.micro_step)

    @property
    def seconds(self) -> float | None:
        """What the run has taken, with its earlier processes; None where its log was cut off."""
        return None if self.end is None else self.run.seconds_before + self.end.seconds

    @property
    def fatal_oom(self) -> OomRecord | None:
        """The out-of-memory that ended the run, or None."""
        return self.ooms[-1] if self.ooms and self.outcome is Outcome.OOM else None

    @property
    def caught_ooms(self) -> list[tuple[OomRecord, bool]]:
        """The failed allocations that did not end what was followed, each with whether their work was done again."""
        if not self.run.script and not self.run.follows_failures:
            return []
        done = {retry.failure for retry in self.retries}
        caught = self.ooms[:-1] if self.fatal_oom else self.ooms
        return [(oom, number in done) for number, oom in enumerate(caught)]

    @property
    def given_up(self) -> list[OomRecord]:
        """The failed allocations that were caught, and whose work was not done again."""
        return [oom for oom, is_done in self.caught_ooms if not is_done]

    @property
    def last_step(self) -> int:
        """The last optimizer step that ended, 0 before the first."""
        return self.steps[-1].step if self.steps else 0

    @property
    def last_phase(self) -> Phase | None:
        """The phase that was running when the log ends."""
        return self.begins[-1].phase if self.begins else None

    def peaks(self) -> dict[Phase, MemoryStats]:
        """Return, per phase in order of first occurrence, the highest value of every counter."""
        seen: dict[Phase, list[MemoryStats]] = {}
        for record in self.phases:
            seen.setdefault(record.phase, []).append(record.after)
        return {phase: _highest(stats) for phase, stats in seen.items()}

    @property
    def needed_bytes(self) -> int:
        """What the run would have had to hold at once, as far as it got: its peak, or what failed and the rest."""
        oom = self.fatal_oom
        if oom is None:
            return self.peak_allocated_bytes
        return max(self.peak_allocated_bytes, oom.allocated_bytes + oom.requested_bytes)

    @property
    def peak_allocated_bytes(self) -> int:
        """Highest allocated bytes over the whole run."""
        return max((p.after.peak_allocated_bytes for p in self.phases), default=0)

    @property
    def peak_reserved_bytes(self) -> int:
        """Highest reserved bytes over the whole run."""
        return max((p.after.peak_reserved_bytes for p in self.phases), default=0)


_COUNTERS = tuple(counter.name for counter in fields(MemoryStats))

_LISTS: dict[type, str] = {
    typing.get_args(hint)[0]: name
    for name, hint in typing.get_type_hints(RunLog).items()
    if typing.get_origin(hint) is list
}


def _highest(stats: Sequence[MemoryStats]) -> MemoryStats:
    """Return the highest value of every counter."""
    return MemoryStats(**{name: max(map(attrgetter(name), stats)) for name in _COUNTERS})


# made once: `json.dumps` makes one for each call, which takes longer than a small record
_to_json = json.JSONEncoder(ensure_ascii=False, check_circular=False).encode


class LogWriter:
    """Appends records to a file, one JSON object a line, unbuffered: a crash loses at most the line being written.

    Until it is open, as where the file may not be touched yet, it holds records back; `close` drops them.
    """

    def __init__(self, path: Path, *, is_open: bool = True) -> None:
        self._path = path
        self._file: FileIO | None = None
        self._held: list[Record] = []
        if is_open:
            self.open()

    def open(self) -> None:
        """Append what was held back; from now on records go to the file at once."""
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if self._path.exists():
                check_regular(self._path.stat().st_mode, self._path)
            self._file = self._path.open("ab", buffering=0)
            while self._held:
                self.write(self._held.pop(0))

    def write(self, record: Record) -> None:
        """Hand one record to the operating system. Raises LogError where the disk does not take all of it."""
        if self._file is None:
            self._held.append(record)
            return
        line = (_to_json(record_to_dict(record)) + "\n").encode(errors="replace")  # a path may be no text
        begin = self._file.tell()
        try:
            written = 0
            while written < len(line):
                written += self._file.write(line[written:])
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(self._file.seek(begin))
            raise LogError(f"{self._path}: the log cannot be written ({error.strerror}); make room for it") from None

    @property
    def num_bytes(self) -> int:
        """Size of what has been written; waits until it is on the disk. Raises OSError where it cannot get there."""
        assert self._file is not None
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Close the file; further writes raise ValueError."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> LogWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def cut_log(path: Path, num_bytes: int, lost: Path) -> None:
    """Move what a run wrote after its checkpoint into another file: the resumed run writes it again.

    What tells of an out-of-memory that ended it stays too: the resumed run may be configured otherwise because of it.
    `num_bytes` is its size when the checkpoint began; the end of that checkpoint's phase stays too, where it is there.
    """
    content = read_input(path)
    end = content.find(b"\n", num_bytes) + 1
    kept = end if end and _ends_checkpoint(content[num_bytes:end]) else num_bytes
    if kept >= len(content):
        return
    write_whole(lost, content[kept:])
    write_whole(path, content[:kept] + _failures(content[kept:]))


def _failures(content: bytes) -> bytes:
    """Return the lines that tell of each out-of-memory that ended a process: what it led to is no part of the rest."""
    failures = stopped = oom = b""
    for line in content.splitlines(keepends=True):
        record = next(_parse_lines([line]), None)
        if isinstance(record, RunRecord):
            stopped = oom = b""
        elif isinstance(record, RecoveryRecord):
            stopped = line if record.action == "stop" else b""
        elif isinstance(record, OomRecord):
            oom = line
        elif isinstance(record, EndRecord) and record.outcome is Outcome.OOM:
            failures += stopped + oom + line
    return failures


def _ends_checkpoint(line: bytes) -> bool:
    record = next(_parse_lines([line]), None)
    return isinstance(record, PhaseRecord) and record.phase is Phase.CHECKPOINT


def predicted_log(measured: Path) -> Path:
    """Return where the log of a measured run's simulation lies."""
    return measured.with_suffix(".predicted.jsonl")


def whole_run_log(measured: Path) -> Path:
    """Return where the log of the simulated whole run lies, of which a part was measured."""
    return measured.with_suffix(".whole_run.jsonl")


def read_rank_logs(folder: Path) -> list[RunLog]:
    """Return the logs of all GPUs of a training run, by their rank; those that cannot be read are left out."""
    files = [folder / LOG_FILE, *folder.glob(PEER_LOG_FILE.format(rank="*"))]
    found = []
    for path in sorted(files, key=_rank_of):
        with suppress(LogError):
            found.append(read_run_log(path))
    return found


def _rank_of(log: Path) -> int:
    digits = re.sub(r"\D", "", log.name)
    return int(digits or 0)


def process_log(folder: Path, process: int) -> Path:
    """Return where a process that a watched script has started writes its log, beside the script's."""
    return folder / f"process-{process}.jsonl"


def read_process_logs(folder: Path) -> list[RunLog]:
    """Return what the processes did that a watched script has started; the first to begin comes first.

    One that was ended from outside, as a pool ends its workers, counts as far as it ran.
    """
    found = []
    for path in folder.glob("process-*.jsonl"):
        with suppress(LogError):  # one that was ended before it could say anything
            log = read_run_log(path)
            if log.end is None and log.outcome is Outcome.ERROR:
                log.end = EndRecord(Outcome.COMPLETED, log.last_step, 0.0, "by a signal")
            found.append(log)
    return sorted(found, key=lambda log: log.run.started_at)


def collect(records: Iterable[Record]) -> RunLog:
    """Return the records as a `RunLog`. Raises LogError where no `RunRecord` is among them."""
    nothing = run_record_of("", "", 0)
    log = RunLog(nothing)
    for record in records:  # it is written again once the model's facts are known: the last one counts
        log.add(record)
    if log.run is nothing:
        raise LogError("no run record: it is no log of this harness, or was cut off before the run began")
    return log


def read_run_log(path: Path, flag: str = "--replay", num_bytes: int | None = None) -> RunLog:
    """Read a log file; a line that is cut or damaged is counted in `num_unreadable_lines`, never fatal.

    Messages name the flag that gave the file. `num_bytes` is how much of it to read; None is all.

    Raises:
        LogError: the file is missing, too large for this machine, has no run record, or was written by a newer schema.
    """
    num_unreadable = 0

    def readable(file: BufferedReader) -> Iterator[Record]:
        nonlocal num_unreadable
        for record in _parse_lines(_lines_of(file, num_bytes)):
            if record is None:
                num_unreadable += 1
            else:
                yield record

    try:
        with open_input(path) as file:
            size = os.fstat(file.fileno()).st_size
            if file.peek(len(GZIP)).startswith(GZIP):
                raise LogError("it is gzip; unpack it first")
            check_room(size if num_bytes is None else min(size, num_bytes), "give a part of it")
            log = collect(readable(file))
    except OSError as error:
        raise LogError(f"{flag} {path}: cannot read the log ({error.strerror})") from None
    except LogError as error:
        raise LogError(f"{flag} {path}: {error}") from None
    log.num_unreadable_lines = num_unreadable
    if log.run.schema_version > SCHEMA_VERSION:
        raise LogError(
            f"{flag} {path}: schema version {log.run.schema_version}; this release reads up to {SCHEMA_VERSION}"
        )
    return log


def check_room(num_bytes: int, advice: str) -> None:
    """Raise LogError where this machine has no room for what is in a file of that size."""
    needed, available = MEMORY_PER_BYTE * num_bytes, psutil.virtual_memory().available
    if needed > available:
        raise LogError(
            f"reading its {format_bytes(num_bytes)} takes about {format_bytes(needed)} of memory, and "
            f"{format_bytes(available)} are free here; {advice}"
        )


def _lines_of(file: BufferedReader, num_bytes: int | None = None) -> Iterator[bytes]:
    """Yield the lines; one that is longer than any record is cut short, and so is no record."""
    left = sys.maxsize if num_bytes is None else num_bytes
    is_rest = False
    while left > 0 and (piece := file.readline(min(left, MAX_LINE_BYTES))):
        left -= len(piece)
        if not is_rest:
            yield piece
        is_rest = not piece.endswith(b"\n")


def _parse_lines(lines: Iterable[bytes]) -> Iterator[Record | None]:
    """Yield the record of each line that holds something; None for one that is none."""
    for line in lines:
        if line.strip():
            try:
                yield record_from_json(line)
            except ValueError:
                yield None


class FollowedLog:
    """A log that another process is writing, read as it grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begin()

    def _begin(self) -> None:
        self._offset = 0
        self._file_id: int | None = None
        self._log: RunLog | None = None

    def poll(self) -> RunLog | None:
        """Return the log so far, None before its run record; starts over where it has been cut."""
        if not self._path.exists():
            return None
        status = self._path.stat()
        if status.st_size < self._offset or status.st_ino != self._file_id:
            self._begin()
            self._file_id = status.st_ino
        with open_input(self._path) as file:
            file.seek(self._offset)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]  # the last line may be half written
        self._offset += len(whole)
        for record in _parse_lines(whole.split(b"\n")):
            if self._log is None and isinstance(record, RunRecord):
                self._log = RunLog(record)
            elif self._log is not None and record is not None:
                self._log.add(record)
        return self._log
