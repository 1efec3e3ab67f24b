"""One training step as PyTorch's allocator recorded it on a GPU, event by event, against the simulated trace.

python -m tests.bench.history record OUT.json.gz     on a CUDA GPU
python -m tests.bench.history compare IN.json.gz     anywhere: simulate the same step and align the two
"""

from __future__ import annotations

import collections
import gzip
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from memory_harness.harness.simulate.trace import Event
from tests.bench.agreement import CONFIGURATIONS, HOST, Op, card_of, run_op

NAME, LENGTH, WARM_UP_STEPS = "outputs-dropped", 512, 2
CONFIGURATION = next(c for c in CONFIGURATIONS if c.name == NAME)
STEP = Op("train", 1, LENGTH, False, 1)

Line = tuple[str, int, str]
"""(`alloc` or `free`, bytes, `file:line function`)"""


def record(path: Path) -> None:
    """Run the recipe on this GPU and write the allocator's history of one step after the warm-up."""
    import torch

    from memory_harness.harness.devices.cuda import CudaDevice
    from memory_harness.harness.strategies.qlora import QLoraStrategy

    device = CudaDevice(card_of(CONFIGURATION), CONFIGURATION.budget_bytes)
    strategy = QLoraStrategy(CONFIGURATION.config, device)
    with device.active():
        strategy.load()
        for _ in range(WARM_UP_STEPS):
            run_op(STEP, CONFIGURATION.config, strategy, device)
        torch.cuda.memory._record_memory_history(max_entries=200_000, stacks="python")
        run_op(STEP, CONFIGURATION.config, strategy, device)
        events = torch.cuda.memory._snapshot()["device_traces"][0]
    lines = [line for event in events if (line := _line(event))]
    path.write_bytes(gzip.compress(json.dumps({"gpu": device.gpu_name, "host": HOST, "events": lines}).encode()))
    print(f"{len(lines)} events")


def _line(event: dict[str, Any]) -> Line | None:
    kinds = {"alloc": "alloc", "free_completed": "free"}
    if event["action"] not in kinds:
        return None
    frames = [f for f in event.get("frames", []) if "/torch/" not in f["filename"] and f["filename"] != "??"]
    top = frames[0] if frames else {"filename": "?", "line": 0, "name": "?"}
    short = top["filename"].split("/site-packages/")[-1]
    return kinds[event["action"]], event["size"], f"{'/'.join(short.split('/')[-3:])}:{top['line']} {top['name']}"


def simulated_step() -> list[Line]:
    """Return the same step's events from the simulation, sizes rounded as the allocator rounds them."""
    from memory_harness.harness.devices.simulated import SimulatedDevice
    from memory_harness.harness.simulate.trace import TraceRecorder
    from memory_harness.harness.strategies.qlora import QLoraStrategy

    device = SimulatedDevice(card_of(CONFIGURATION), CONFIGURATION.budget_bytes, computes=False)
    strategy = QLoraStrategy(CONFIGURATION.config, device)
    with device.active():
        strategy.load()
        for _ in range(WARM_UP_STEPS):
            run_op(STEP, CONFIGURATION.config, strategy, device)
        sizes = dict(device.memory.simulated.live())
        device.tracer.sink = recorder = TraceRecorder()
        run_op(STEP, CONFIGURATION.config, strategy, device)
    return _lines(recorder.events, sizes)


def _lines(events: Sequence[Event], sizes: dict[Any, int]) -> list[Line]:
    from memory_harness.harness.simulate.tracer import source_lines

    lines: list[Line] = []
    sizes = dict(sizes)
    for key, size, extra in events:
        if size >= 0:
            sizes[key] = size
            line = str(source_lines(extra)[0]) if extra else "?"  # type: ignore[arg-type]
            lines.append(("alloc", _rounded(size), line))
        elif size == -1:
            lines.append(("free", _rounded(sizes.pop(key, 0)), ""))
    return lines


def _rounded(num_bytes: int) -> int:
    return max(512, -(-num_bytes // 512) * 512)


def compare(path: Path) -> dict[str, Any]:
    """Align the allocations of both sides by size; return the matched share, and what is left on each side.

    Frees are left out: those that follow one another come in another order, which leaves no trace in memory.
    """
    events = json.loads(gzip.decompress(path.read_bytes()))["events"]
    measured = [(size, where) for kind, size, where in events if kind == "alloc"]
    simulated = [(size, where) for kind, size, where in simulated_step() if kind == "alloc"]
    pairs = align([_rounded(size) for size, _ in measured], [_rounded(size) for size, _ in simulated])
    only_measured = set(range(len(measured))) - {i for i, _ in pairs}
    only_simulated = set(range(len(simulated))) - {j for _, j in pairs}
    return {
        "num_measured": len(measured),
        "num_simulated": len(simulated),
        "num_matched": len(pairs),
        "matched_share": 2 * len(pairs) / (len(measured) + len(simulated)),
        "only_measured": _groups(measured[i] for i in sorted(only_measured)),
        "only_simulated": _groups(simulated[j] for j in sorted(only_simulated)),
    }


def _groups(lines: Iterable[tuple[int, str]]) -> dict[str, int]:
    return dict(collections.Counter(f"{size} B at {where}" for size, where in lines).most_common())


def align(left: Sequence[int], right: Sequence[int], window: int = 48, agreement: int = 6) -> list[tuple[int, int]]:
    """Return index pairs of equal elements in order: after a difference, go on where the next few agree again.

    Linear in the length, unlike an exact longest common subsequence.
    """
    pairs: list[tuple[int, int]] = []
    i = j = 0
    while i < len(left) and j < len(right):
        if left[i] == right[j]:
            pairs.append((i, j))
            i, j = i + 1, j + 1
            continue
        i, j = _resume(left, right, i, j, window, agreement)
    return pairs


def _resume(left: Sequence[int], right: Sequence[int], i: int, j: int, window: int, agreement: int) -> tuple[int, int]:
    for distance in range(1, 2 * window):
        for ahead in range(max(0, distance - window), min(distance, window) + 1):
            a, b = i + ahead, j + distance - ahead
            if left[a : a + agreement] == right[b : b + agreement]:
                return a, b
    return i + 1, j + 1


def main(arguments: Sequence[str]) -> None:
    """Record or compare."""
    command, path = arguments[0], Path(arguments[1])
    if command == "record":
        record(path)
    else:
        print(json.dumps(compare(path), indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
