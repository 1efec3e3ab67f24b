"""Memory snapshots as `torch.cuda.memory._dump_snapshot` writes them: read without running anything, told as a run log.

A snapshot knows addresses, sizes, stacks and the order of events, but no steps, batches or model; nor does the log.
Source: the docstring of torch.cuda.memory._snapshot, and snapshots of torch 2.11.
"""

from __future__ import annotations

import pickle
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from memory_harness.harness.log.allocator_sizes import block_size, segment_size
from memory_harness.harness.log.errors import LogError
from memory_harness.harness.log.files import write_whole
from memory_harness.harness.log.records import (
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
from memory_harness.harness.log.runlog import RunLog
from memory_harness.harness.log.source_lines import SourceLine, users_line

PICKLE_PROTOCOL = 4  # The newest that PyTorch's viewer reads. Source: torch/utils/viz/MemoryViz.js, unpickle.
SNAPSHOT_BEGINS = "\ufffd\x04\ufffd"  # how a pickle of that protocol begins, read as text
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


def is_snapshot(path: Path) -> bool:
    """Return whether a file begins as a pickle does; a run log begins with a brace."""
    try:
        with path.open("rb") as file:
            return file.read(1) == pickle.PROTO
    except OSError:
        return False


def read_snapshot(path: Path) -> RunLog:
    """Return what a memory snapshot tells, as the log of a run.

    Raises:
        LogError: the file cannot be read, holds more than plain data, or is no memory snapshot.
    """
    snapshot = load_snapshot(path)
    try:
        return log_of_snapshot(snapshot, path.name)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise _no_snapshot(path, f"{type(error).__name__} {error}") from None


def load_snapshot(path: Path) -> dict[str, Any]:
    """Return the snapshot's plain data; nothing that it names is imported or called. Raises as `read_snapshot`."""
    try:
        with path.open("rb") as file:
            data = _PlainUnpickler(file).load()
    except OSError as error:
        raise LogError(f"--replay {path}: cannot be read ({error.strerror})") from None
    except _NotPlain as error:
        raise LogError(
            f"--replay {path}: the pickle asks for {error}, which a memory snapshot never does; it was not opened"
        ) from None
    except Exception as error:  # whatever a damaged pickle makes the unpickler stumble over
        raise LogError(f"--replay {path}: a damaged or cut pickle ({type(error).__name__})") from None
    if isinstance(data, list):  # torch.cuda.memory_snapshot(): segments only
        data = {"segments": data, "device_traces": []}
    if not isinstance(data, dict) or not all(isinstance(data.get(k), list) for k in ("segments", "device_traces")):
        raise _no_snapshot(path, "segments and device_traces expected")
    return data


def write_snapshot(snapshot: dict[str, Any], path: Path) -> None:
    """Write a snapshot as a whole or not at all. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, pickle.dumps(snapshot, protocol=PICKLE_PROTOCOL))


class _NotPlain(Exception):
    """A pickle asks for an object that is no plain data."""


class _PlainUnpickler(pickle.Unpickler):
    """Reads dicts, lists, tuples, strings and numbers; refuses everything else before it is imported."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise _NotPlain(f"{module}.{name}")

    def persistent_load(self, identifier: object) -> NoReturn:
        raise _NotPlain("a persistent object")


def _no_snapshot(path: Path, reason: str) -> LogError:
    return LogError(f"--replay {path}: a pickle, but no memory snapshot of PyTorch ({reason})")


@dataclass
class _Totals:
    """What is allocated and reserved while events are read; offsets are found at the end, where both are known."""

    allocated_bytes: int = 0
    reserved_bytes: int = 0

    def apply(self, event: dict[str, Any]) -> None:
        """Take an event. A block is counted rounded up, as the allocator counts it."""
        size = event["size"]
        block = block_size(size)
        match event["action"]:
            case "alloc":
                self.allocated_bytes += block
            case "free_completed":
                self.allocated_bytes -= block
            case "segment_alloc" | "segment_map":
                self.reserved_bytes += size
            case "segment_free" | "segment_unmap":
                self.reserved_bytes -= size


def log_of_snapshot(snapshot: dict[str, Any], name: str) -> RunLog:
    """Return the log: a phase record per stretch of events of one phase, and the last failed allocation.

    Phases are told by the functions on the stacks; what was allocated before the recording began has none.
    """
    device = _busiest_device(snapshot)
    events, segments = _events_of(snapshot, device), _segments_of(snapshot, device)
    first = _totals_before(events, segments)
    phases, failed = _walk(events, first)
    oom = None if failed is None else _oom_record(*failed, segments)
    if oom is None:
        peak_bytes = max((phase.after.peak_reserved_bytes for phase in phases), default=0)
        budget_bytes = max(peak_bytes, _total(segments, "total_size"))
        end = EndRecord(Outcome.STOPPED, 0, 0.0, "the snapshot ends here")
    else:
        budget_bytes = oom.budget_bytes
        end = EndRecord(Outcome.OOM, 0, 0.0)
    log = RunLog(_run_record(snapshot, device, name, budget_bytes), phases=phases, end=end)
    if phases:
        log.add(PhaseBegin(phases[-1].phase, 0, 0, 0))
    if oom is not None:
        log.add(oom)
    return log


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
    return max(sorted(devices), key=weight, default=0)


def _events_of(snapshot: dict[str, Any], device: int) -> list[dict[str, Any]]:
    traces: list[list[dict[str, Any]]] = snapshot["device_traces"]
    return traces[device] if device < len(traces) else []


def _segments_of(snapshot: dict[str, Any], device: int) -> list[dict[str, Any]]:
    return [segment for segment in snapshot["segments"] if segment.get("device", 0) == device]


def _totals_before(events: list[dict[str, Any]], segments: list[dict[str, Any]]) -> _Totals:
    """Return what was there before the first event: the present less what the events changed."""
    change = _Totals()
    for event in events:
        change.apply(event)
    allocated_bytes = _total(segments, "allocated_size") - change.allocated_bytes
    return _Totals(allocated_bytes, _total(segments, "total_size") - change.reserved_bytes)


def _walk(
    events: list[dict[str, Any]], totals: _Totals
) -> tuple[list[PhaseRecord], tuple[dict[str, Any], _Part, _Totals] | None]:
    """Return a record per stretch of one part, and the last failed allocation with its part and what was there."""
    phases: list[PhaseRecord] = []
    levels, part = [replace(totals)], _Part(Phase.FORWARD)
    failed = None
    for event in events:
        now = part_of(event) or part
        if now != part:
            phases += _phase_records(part, levels)
            levels, part = levels[-1:], now
        totals.apply(event)
        levels.append(replace(totals))
        if event["action"] == "oom":
            failed = (event, part, levels[-1])
    return [*phases, *_phase_records(part, levels)], failed


class _Part(NamedTuple):
    """A part of the run; the batch is known only where the run was simulated."""

    phase: Phase
    batch: BatchShape | None = None


def _phase_records(part: _Part, levels: Sequence[_Totals]) -> list[PhaseRecord]:
    """Return the record of consecutive events of one part, if there are any; the first level is that before them."""
    if len(levels) == 1:
        return []
    before, after = levels[0], levels[-1]
    stats = MemoryStats(
        allocated_bytes=after.allocated_bytes,
        reserved_bytes=after.reserved_bytes,
        active_bytes=after.allocated_bytes,
        peak_allocated_bytes=max(level.allocated_bytes for level in levels),
        peak_reserved_bytes=max(level.reserved_bytes for level in levels),
    )
    return [
        PhaseRecord(part.phase, 0, 0, 0, 0.0, before.allocated_bytes, before.reserved_bytes, stats, batch=part.batch)
    ]


def part_of(event: dict[str, Any]) -> _Part | None:
    """Return the part that an event belongs to, by its label or the outermost telling function on its stack."""
    label = _LABEL.fullmatch(str(event.get("user_metadata", "")))
    if label is not None and label["phase"] in Phase.__members__:
        batch = BatchShape(int(label["batch_size"]), int(label["length"]), (), 0) if label["length"] else None
        return _Part(Phase[label["phase"]], batch)
    for frame in reversed(event.get("frames", ())):
        phase = PHASE_OF_FUNCTION.get(frame["name"])
        if phase is not None:
            return _Part(phase)
        if "autograd::Engine" in frame["name"]:
            return _Part(Phase.BACKWARD)
        if frame["name"] == "step" and "optim" in frame["filename"]:
            return _Part(Phase.OPTIMIZER)
    return None


def _oom_record(event: dict[str, Any], part: _Part, totals: _Totals, segments: list[dict[str, Any]]) -> OomRecord:
    lines = _source_lines(event.get("frames", ()))
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
            sizes[_maker(block.get("frames", ()))] += block["size"]
    shown = dict(sizes.most_common(MAX_LIVE_LINES))
    rest = sizes.total() - sum(shown.values())
    if rest:
        shown["other"] = rest
    return shown


def _maker(frames: Sequence[dict[str, Any]]) -> str:
    if frames and frames[0]["line"] == 0 and frames[0]["filename"].isidentifier():
        return str(frames[0]["filename"])
    place = users_line(_source_lines(frames))
    return str(place) if place else "made before the recording began"


def _source_lines(frames: Sequence[dict[str, Any]]) -> list[SourceLine]:
    """Return the Python frames outside PyTorch, innermost first."""
    lines = map(SourceLine._make, map(itemgetter("filename", "line", "name"), frames))
    return [line for line in lines if line.path.endswith(".py") and "/site-packages/torch/" not in line.path]


def _run_record(snapshot: dict[str, Any], device: int, name: str, budget_bytes: int) -> RunRecord:
    """Return the record of the run that a simulated snapshot carries, else one that says what is not known."""
    carried = snapshot.get("harness", {}).get("run")
    if carried:
        run = record_from_dict(carried)
        if not isinstance(run, RunRecord):
            raise ValueError("the run that it carries is none")
        return replace(run, total_steps=0, steps_per_epoch=0)
    return run_record_of("cuda", f"GPU {device} of {name}", budget_bytes, corpus="unknown")
