"""Memory snapshots as `torch.cuda.memory._dump_snapshot` writes them: read without running anything, told as a run log.

A snapshot knows addresses, sizes, stacks and the order of events, but no steps, batches or model; nor does the log.
Source: the docstring of torch.cuda.memory._snapshot, and snapshots of torch 2.11.
"""

from __future__ import annotations

import gc
import os
import pickle
import re
import resource
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

import psutil

from memory_harness.configs.inputs import open_input
from memory_harness.configs.printable import inert
from memory_harness.configs.units import MIB
from memory_harness.harness.log.allocator_sizes import MIN_BLOCK_BYTES, segment_size
from memory_harness.harness.log.errors import LogError
from memory_harness.harness.log.files import write_whole
from memory_harness.harness.log.marks import marked
from memory_harness.harness.log.records import (
    MAX_BYTES,
    BatchShape,
    EndRecord,
    MemoryStats,
    OomRecord,
    Outcome,
    Phase,
    PhaseBegin,
    PhaseRecord,
    RunRecord,
    SegmentRuns,
    record_from_dict,
    run_record_of,
    segment_runs,
)
from memory_harness.harness.log.runlog import MEMORY_PER_BYTE, RunLog, check_room
from memory_harness.harness.log.snapshot_contents import Contents, contents_of, live_blocks, maker_of, source_lines
from memory_harness.harness.log.source_lines import users_line
from memory_harness.harness.log.traceback_text import Frame, OomMessage, OomTraceback

PICKLE_PROTOCOL = 4  # The newest that PyTorch's viewer reads. Source: torch/utils/viz/MemoryViz.js, unpickle.
SNAPSHOT_BEGINS = "\ufffd\x04\ufffd"  # how a pickle of that protocol begins, read as text
SPARE_BYTES = 512 * MIB
"""of memory for reading a snapshot, beside what it takes for each byte: a damaged one can ask for all there is"""
MAX_LIVE_LINES = 6  # lines of code whose live memory is listed; the others are summed up

_FUNCTIONS = {
    Phase.EVAL: {
        "evaluate", "evaluation_loop", "evaluation_step", "eval_step", "prediction_loop", "prediction_step", "validate",
        "validation_step",
    },
    Phase.GENERATE: {"generate", "prefill", "decode"},
    Phase.CHECKPOINT: {"_save_checkpoint", "save_checkpoint", "save_model", "save_pretrained"},
    Phase.RESUME: {"_load_from_checkpoint", "_load_optimizer_and_scheduler", "load_checkpoint"},
    Phase.LOAD: {"from_pretrained", "get_peft_model", "load_model", "prepare_model_for_kbit_training"},
    Phase.BACKWARD: {"backward", "recompute_fn", "unpack_hook"},
    Phase.OPTIMIZER: {"clip_grad_norm_", "optimizer_step", "unscale_", "zero_grad"},
    Phase.FORWARD: {"compute_loss", "forward"},
}  # fmt: skip
"""Names that PyTorch, transformers, lightning and this harness give to what belongs to a phase."""

_LABEL = re.compile(r"(?P<phase>[A-Z]+)(?: (?P<batch_size>\d+)x(?P<length>\d+))?")
"""What simulated runs write into `user_metadata`, such as `EVAL 8x2048`."""

PHASE_OF_FUNCTION = {name: phase for phase, names in _FUNCTIONS.items() for name in names}


_SHAPE_ERRORS = (AttributeError, IndexError, KeyError, TypeError, ValueError, OverflowError)
"""What plain data raise that are laid out otherwise than a snapshot."""
T = TypeVar("T")


def is_snapshot(path: Path) -> bool:
    """Return whether a file begins as a pickle does; a run log begins with a brace."""
    try:
        with open_input(path) as file:
            return file.read(1) == pickle.PROTO
    except OSError:
        return False


def read_snapshot(path: Path, budget_bytes: int | None = None, flag: str = "--replay") -> Replayed:
    """Return what a memory snapshot tells: the log of a run, and what lay in memory.

    Args:
        path: the file.
        budget_bytes: what PyTorch could use; None where the snapshot has to say.
        flag: the one that named the file.

    Raises:
        LogError: the file cannot be read, holds more than plain data, or is no memory snapshot.
    """
    return _looked_at(path, flag, lambda snapshot: replay_snapshot(snapshot, path.name, budget_bytes))


def read_live_blocks(path: Path, flag: str) -> list[tuple[dict[str, Any], int]]:
    """Return what is in use at the end of a snapshot, each block with its bytes. Raises as `read_snapshot`."""
    return _looked_at(path, flag, lambda snapshot: live_blocks(_segments_of(snapshot, _busiest_device(snapshot))))


def _looked_at(path: Path, flag: str, look: Callable[[dict[str, Any]], T]) -> T:
    """Return what is seen in a snapshot, without the garbage collector: millions of events make no cycles."""
    had_collector = gc.isenabled()
    gc.disable()
    try:
        snapshot = load_snapshot(path, flag)
        _check_sizes(snapshot)
        _complete(snapshot)
        return look(snapshot)
    except _SHAPE_ERRORS as error:
        raise _no_snapshot(path, flag, f"{type(error).__name__} {inert(str(error))}") from None
    finally:
        if had_collector:
            gc.enable()


def _check_sizes(snapshot: dict[str, Any]) -> None:
    """Raise ValueError where a size is no number of bytes that a card could have."""
    segments = snapshot["segments"]
    sizes = chain.from_iterable((segment["total_size"], segment["allocated_size"]) for segment in segments)
    blocks = map(itemgetter("size"), _blocks(segments))
    events = map(itemgetter("size"), chain.from_iterable(snapshot["device_traces"]))
    for size in chain(sizes, blocks, events):
        if type(size) is not int or not 0 <= size < MAX_BYTES:
            shown = f"{size:.3g}" if isinstance(size, float) else type(size).__name__  # a number may be a mile long
            raise ValueError(f"a size that is no number of bytes: {shown}")


def _complete(snapshot: dict[str, Any]) -> None:
    """Give blocks of PyTorch 2.0 addresses and stacks, and what lives to the end the size of its block.

    That may be larger than what was asked for: rests below 1 MiB are not split off.
    """
    sizes: dict[int, int] = {}
    for segment in snapshot["segments"]:
        address = segment.get("address", 0)
        for block in segment["blocks"]:
            if "address" not in block:
                block["address"] = address
                block.setdefault("frames", block["history"][0].get("frames", ()) if block.get("history") else ())
            if block["state"] != "inactive":
                sizes[block["address"]] = block["size"]
            address += block["size"]
    for event in chain.from_iterable(map(reversed, snapshot["device_traces"])):
        if event["action"] == "alloc" and event["addr"] in sizes:
            event["size"] = sizes.pop(event["addr"])


def load_snapshot(path: Path, flag: str = "--replay") -> dict[str, Any]:
    """Return the snapshot's plain data; nothing that it names is imported or called. Raises as `read_snapshot`."""
    try:
        with open_input(path) as file:
            check_room(os.fstat(file.fileno()).st_size, "record fewer events (max_entries=...)")
            with memory_limit(MEMORY_PER_BYTE * os.fstat(file.fileno()).st_size + SPARE_BYTES):
                data = _PlainUnpickler(file).load()
    except LogError as error:
        raise LogError(f"{flag} {path}: {error}") from None
    except OSError as error:
        raise LogError(f"{flag} {path}: cannot be read ({error.strerror})") from None
    except _NotPlain as error:
        raise LogError(
            f"{flag} {path}: the pickle asks for {error}, which a memory snapshot never does; it was not opened"
        ) from None
    except Exception as error:  # whatever a damaged pickle makes the unpickler stumble over
        raise LogError(f"{flag} {path}: a damaged or cut pickle ({type(error).__name__})") from None
    if isinstance(data, list):  # torch.cuda.memory_snapshot(): segments only
        data = {"segments": data, "device_traces": []}
    if not isinstance(data, dict) or not all(isinstance(data.get(k), list) for k in ("segments", "device_traces")):
        raise _no_snapshot(path, flag, "segments and device_traces expected")
    return data


def write_snapshot(snapshot: dict[str, Any], path: Path) -> None:
    """Write a snapshot as a whole or not at all. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, marked("snapshot", pickle.dumps(snapshot, protocol=PICKLE_PROTOCOL)))


@contextmanager
def memory_limit(num_bytes: int) -> Iterator[None]:
    """Let what asks for more memory than that fail at once within, with a MemoryError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = psutil.Process().memory_info().vms + num_bytes
    allowed = [value for value in (limit, soft, hard) if value != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(allowed), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


class _NotPlain(Exception):
    """A pickle asks for an object that is no plain data."""


class _PlainUnpickler(pickle.Unpickler):
    """Reads dicts, lists, tuples, strings and numbers; refuses everything else before it is imported."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise _NotPlain(f"{module}.{name}")

    def persistent_load(self, identifier: object) -> NoReturn:
        raise _NotPlain("a persistent object")


def _no_snapshot(path: Path, flag: str, reason: str) -> LogError:
    return LogError(f"{flag} {path}: a pickle, but no memory snapshot of PyTorch ({reason})")


class _Totals(NamedTuple):
    """What is allocated and reserved at one moment."""

    allocated_bytes: int = 0
    reserved_bytes: int = 0


_CHANGES = {
    "alloc": (1, 0),
    "free_completed": (-1, 0),
    "segment_alloc": (0, 1),
    "segment_map": (0, 1),
    "segment_free": (0, -1),
    "segment_unmap": (0, -1),
}
"""How an event's size changes what is allocated, a block being counted rounded up, and what is reserved."""


class Replayed(NamedTuple):
    """A snapshot told as a run log, and what lay in memory."""

    log: RunLog
    contents: Contents
    failed: OomTraceback | None
    """the last allocation that failed, as a traceback tells of it"""


def log_of_snapshot(snapshot: dict[str, Any], name: str, budget_bytes: int | None = None) -> RunLog:
    """Return the log: a phase record per stretch of events of one phase, and the last failed allocation.

    Phases are told by the functions on the stacks; what was allocated before the recording began has none.
    """
    return replay_snapshot(snapshot, name, budget_bytes).log


def replay_snapshot(snapshot: dict[str, Any], name: str, budget_bytes: int | None = None) -> Replayed:
    """Return the log of a snapshot and what lay in memory.

    Args:
        snapshot: plain data, as `load_snapshot` gives it.
        name: the file's, which stands in the report.
        budget_bytes: what PyTorch could use; None where the snapshot has to say.
    """
    device = _busiest_device(snapshot)
    events, segments = _events_of(snapshot, device), _segments_of(snapshot, device)
    first, parts = _totals_before(events, segments), _Parts()
    phases, failed = _walk(events, first, parts)
    oom = None if failed is None else _oom_record(*failed, segments)
    peaks = [max(phase.after.peak_reserved_bytes, phase.after.peak_allocated_bytes) for phase in phases]
    least_bytes = max(peaks, default=_total(segments, "total_size"))
    run = _run_record(snapshot, device, name, budget_bytes, oom, least_bytes)
    if oom is not None:
        oom = replace(oom, budget_bytes=run.budget_bytes)
    ends = "the snapshot ends here" if events else "the snapshot has no events, only what was in use when it was made"
    end = EndRecord(Outcome.OOM, 0, 0.0) if oom else EndRecord(Outcome.STOPPED, 0, 0.0, ends)
    log = RunLog(run, phases=phases, end=end)
    if phases:
        log.add(PhaseBegin(phases[-1].phase, 0, 0, 0))
    if oom is not None:
        log.add(oom)
    annotations = [note for note in snapshot.get("external_annotations", ()) if note.get("device", device) == device]
    contents = contents_of(events, segments, first.allocated_bytes, parts.name_of, annotations)
    if phases:
        highest = max(phases, key=attrgetter("needed_bytes"))
        log.add(
            contents.peak.record(highest.phase, 0, contents.peak_allocated_bytes, highest.after.peak_reserved_bytes)
        )
    traceback = None if oom is None or failed is None else _traceback(failed[0], oom)
    return Replayed(log, contents, traceback)


def _traceback(event: dict[str, Any], oom: OomRecord) -> OomTraceback:
    """Return a failed allocation as a traceback tells of it."""
    frames = []
    for frame in event.get("frames", ()):
        if frame["filename"].endswith(".py"):
            frames.append(Frame(inert(frame["filename"]), frame["line"], inert(frame["name"])))
    message = OomMessage(
        "CUDA",
        requested_bytes=oom.requested_bytes,
        free_bytes=int(event["device_free"]) if "device_free" in event else None,
        allocated_bytes=oom.allocated_bytes,
        unused_bytes=oom.reserved_bytes - oom.allocated_bytes,
    )
    return OomTraceback(message, tuple(frames))


def _total(segments: list[dict[str, Any]], field: str) -> int:
    return sum(segment[field] for segment in segments)


def _busiest_device(snapshot: dict[str, Any]) -> int:
    """Return the device on which an allocation failed, else the one with the most events, else with the most memory."""

    def weight(device: int) -> tuple[bool, int, int]:
        events = _events_of(snapshot, device)
        has_failed = any(event["action"] == "oom" for event in events)
        return has_failed, len(events), _total(_segments_of(snapshot, device), "total_size")

    devices = {segment.get("device", 0) for segment in snapshot["segments"]}
    devices.update(range(len(snapshot["device_traces"])))
    if not all(type(device) is int for device in devices):
        raise ValueError("a device that is no number")
    return max(sorted(devices), key=weight, default=0)


def _events_of(snapshot: dict[str, Any], device: int) -> list[dict[str, Any]]:
    traces: list[list[dict[str, Any]]] = snapshot["device_traces"]
    return traces[device] if device < len(traces) else []


def _segments_of(snapshot: dict[str, Any], device: int) -> list[dict[str, Any]]:
    return [segment for segment in snapshot["segments"] if segment.get("device", 0) == device]


def _totals_before(events: list[dict[str, Any]], segments: list[dict[str, Any]]) -> _Totals:
    """Return what was there before the first event: the present less what the events changed."""
    allocated = reserved = 0
    for event in events:
        change = _CHANGES.get(event["action"])
        if change is not None:
            allocated += change[0] * (-(-event["size"] // MIN_BLOCK_BYTES) * MIN_BLOCK_BYTES)
            reserved += change[1] * event["size"]
    in_use = sum(block["size"] for block in _blocks(segments) if block["state"] != "inactive")
    now = _Totals(in_use, _total(segments, "total_size"))
    return _Totals(max(0, now.allocated_bytes - allocated), max(0, now.reserved_bytes - reserved))


def _walk(
    events: list[dict[str, Any]], first: _Totals, parts: _Parts
) -> tuple[list[PhaseRecord], tuple[dict[str, Any], _Part, _Totals] | None]:
    """Return a record per stretch of one part, and the last failed allocation with its part and what was there."""
    phases: list[PhaseRecord] = []
    part, before, failed = _Part(Phase.FORWARD), first, None
    allocated, reserved = first
    peak_allocated, peak_reserved, is_empty = allocated, reserved, True
    for event in events:
        now = parts.of(event) or part
        if now is not part and now != part:
            if not is_empty:
                now_totals = _Totals(allocated, reserved)
                phases.append(_phase_record(part, before, now_totals, _Totals(peak_allocated, peak_reserved)))
                before = now_totals
            peak_allocated, peak_reserved = allocated, reserved
            part = now
        is_empty = False
        action = event["action"]
        change = _CHANGES.get(action)
        if change is not None:
            allocated += change[0] * (-(-event["size"] // MIN_BLOCK_BYTES) * MIN_BLOCK_BYTES)
            reserved += change[1] * event["size"]
            peak_allocated, peak_reserved = max(peak_allocated, allocated), max(peak_reserved, reserved)
        elif action == "oom":
            failed = (event, part, _Totals(allocated, max(allocated, reserved)))
    if not is_empty:
        phases.append(_phase_record(part, before, _Totals(allocated, reserved), _Totals(peak_allocated, peak_reserved)))
    return phases, failed


class _Part(NamedTuple):
    """A part of the run; the batch is known only where the run was simulated."""

    phase: Phase
    batch: BatchShape | None = None


def _phase_record(part: _Part, before: _Totals, after: _Totals, peak: _Totals) -> PhaseRecord:
    """Return the record of consecutive events of one part."""
    stats = MemoryStats(
        allocated_bytes=after.allocated_bytes,
        reserved_bytes=after.reserved_bytes,
        active_bytes=after.allocated_bytes,
        peak_allocated_bytes=peak.allocated_bytes,
        peak_reserved_bytes=peak.reserved_bytes,
    )
    return PhaseRecord(part.phase, 0, 0, 0, 0.0, before.allocated_bytes, before.reserved_bytes, stats, batch=part.batch)


class _Parts:
    """The parts that events belong to, by their labels or the outermost telling functions on their stacks.

    Frames are shared by the events of a snapshot: each is looked at once.
    """

    def __init__(self) -> None:
        self._of_label: dict[str, _Part | None] = {}
        self._of_frame: dict[int, _Part | None] = {}

    def of(self, event: dict[str, Any]) -> _Part | None:
        """Return the part of an event, None where nothing tells."""
        label = event.get("user_metadata")
        if label and isinstance(label, str):
            part = self._labelled(label)
            if part is not None:
                return part
        known = self._of_frame
        for frame in reversed(event.get("frames", ())):
            key = id(frame)
            if key not in known:
                known[key] = _part_of_frame(frame)
            part = known[key]
            if part is not None:
                return part
        return None

    def name_of(self, event: dict[str, Any]) -> str | None:
        """Return the name of the part of an event."""
        part = self.of(event)
        return None if part is None else str(part.phase)

    def _labelled(self, label: str) -> _Part | None:
        if label not in self._of_label:
            match = _LABEL.fullmatch(label)
            is_phase = match is not None and match["phase"] in Phase.__members__
            self._of_label[label] = _labelled_part(match) if match is not None and is_phase else None
        return self._of_label[label]


def _labelled_part(match: re.Match[str]) -> _Part:
    batch = BatchShape(int(match["batch_size"]), int(match["length"]), (), 0) if match["length"] else None
    return _Part(Phase[match["phase"]], batch)


def _part_of_frame(frame: dict[str, Any]) -> _Part | None:
    phase = PHASE_OF_FUNCTION.get(frame["name"])
    if phase is not None:
        return _Part(phase)
    if "autograd::Engine" in frame["name"]:
        return _Part(Phase.BACKWARD)
    if frame["name"] == "step" and "optim" in frame["filename"]:
        return _Part(Phase.OPTIMIZER)
    return None


def _oom_record(event: dict[str, Any], part: _Part, totals: _Totals, segments: list[dict[str, Any]]) -> OomRecord:
    lines = source_lines(event.get("frames", ()))
    place = users_line(lines)
    free = [block["size"] for block in _blocks(segments) if block["state"] == "inactive"]
    return OomRecord(
        phase=part.phase,
        step=0,
        micro_step=0,
        epoch=0,
        requested_bytes=event["size"],
        allocated_bytes=totals.allocated_bytes,
        reserved_bytes=totals.reserved_bytes,
        budget_bytes=_budget(event, totals),
        largest_free_block_bytes=max(free, default=0),
        num_alloc_retries=0,
        batch=part.batch,
        where=str(place).rpartition(" ")[0] if place else None,
        frames=tuple(map(str, lines)),
        live_bytes=_live_by_line(segments),
        segments=runs_of_segments(segments),
    )


def runs_of_segments(segments: list[dict[str, Any]]) -> tuple[SegmentRuns, ...]:
    """Return what of each segment is in use; `segments` as `torch.cuda.memory_snapshot()` gives them."""
    found = []
    for segment in sorted(segments, key=lambda segment: segment.get("address", 0)):
        blocks = [(block["size"], block["state"] != "inactive") for block in segment["blocks"]]
        found.append(segment_runs(segment.get("segment_type", "large"), blocks))
    return tuple(found)


def _blocks(segments: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return chain.from_iterable(map(itemgetter("blocks"), segments))


def _budget(event: dict[str, Any], totals: _Totals) -> int:
    """Return what the process could have reserved in all when the allocation failed."""
    free = int(event.get("device_free", 0))
    if free >= segment_size(event["size"]):  # a limit on the process stopped it: set_per_process_memory_fraction
        return totals.reserved_bytes
    return totals.reserved_bytes + free


def _live_by_line(segments: list[dict[str, Any]]) -> dict[str, int]:
    """Return live bytes by the user's line that made them, or by the kind of tensor where a simulated run names it."""
    sizes: Counter[str] = Counter()
    for block in _blocks(segments):
        if block["state"] != "inactive":
            sizes[maker_of(block)] += block["size"]
    shown = dict(sizes.most_common(MAX_LIVE_LINES))
    rest = sizes.total() - sum(shown.values())
    if rest:
        shown["other"] = rest
    return shown


def _run_record(
    snapshot: dict[str, Any], device: int, name: str, given_bytes: int | None, oom: OomRecord | None, least_bytes: int
) -> RunRecord:
    """Return the record of the run that a simulated snapshot carries, else one that says what is not known.

    Args:
        snapshot: plain data.
        device: its number.
        name: the file's.
        given_bytes: the budget that the user names.
        oom: the failed allocation, which says how much the process could have had.
        least_bytes: what it had at some moment.
    """
    carried = snapshot.get("harness", {}).get("run")
    if carried:
        run = record_from_dict(carried)
        if not isinstance(run, RunRecord):
            raise ValueError("the run that it carries is none")
        return replace(run, total_steps=0, steps_per_epoch=0)
    is_known = given_bytes is not None or oom is not None
    found = given_bytes or max(oom.budget_bytes if oom is not None else 0, least_bytes)
    run = run_record_of("cuda", f"GPU {device} of {inert(name)}", found, corpus="unknown")
    return replace(run, budget_is_known=is_known)
