"""One training step as PyTorch's allocator recorded it on a GPU, event by event, against the simulated trace.

    python -m tests.bench.history record OUT.json.gz     on a CUDA GPU
    python -m tests.bench.history compare IN.json.gz     anywhere: simulate the same step and align the two
"""

from __future__ import annotations

import collections
import difflib
import gzip
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.simulate.trace import Event
from tests.bench.agreement import CONFIGURATIONS, HOST, Op, card_of, run_op

NAME, LENGTH, WARM_UP_STEPS = "outputs-dropped", 512, 2
CONFIGURATION = next(c for c in CONFIGURATIONS if c.name == NAME)
STEP = Op("train", 1, LENGTH, False, 1)

Line = tuple[str, int, str]
"""(`alloc` or `free`, bytes, `file:line function`)"""


def record(path: Path) -> None:
    """Run the recipe on this GPU and write the allocator's history of one step after the warm-up."""
    import torch

    from harness.devices.cuda import CudaDevice
    from harness.strategies.qlora import QLoraStrategy

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
    from harness.devices.simulated import SimulatedDevice
    from harness.simulate.trace import TraceRecorder
    from harness.strategies.qlora import QLoraStrategy

    device = SimulatedDevice(card_of(CONFIGURATION), CONFIGURATION.budget_bytes, computes=False)
    strategy = QLoraStrategy(CONFIGURATION.config, device)
    with device.active():
        strategy.load()
        for _ in range(WARM_UP_STEPS):
            run_op(STEP, CONFIGURATION.config, strategy, device)
        sizes = dict(device.memory.live())
        device.tracer.sink = recorder = TraceRecorder()
        run_op(STEP, CONFIGURATION.config, strategy, device)
    return _lines(recorder.events, sizes)


def _lines(events: Sequence[Event], sizes: dict[Any, int]) -> list[Line]:
    from harness.simulate.tracer import describe_frame

    lines: list[Line] = []
    sizes = dict(sizes)
    for key, size, extra in events:
        if size >= 0:
            sizes[key] = size
            site = extra[0] if extra else None  # type: ignore[index]
            lines.append(("alloc", _rounded(size), describe_frame(site) if site else "?"))
        elif size == -1:
            lines.append(("free", _rounded(sizes.pop(key, 0)), ""))
    return lines


def _rounded(num_bytes: int) -> int:
    return max(512, -(-num_bytes // 512) * 512)


def compare(path: Path) -> dict[str, Any]:
    """Align the two sequences by kind and size; return the matched share and what is left on each side."""
    measured = [tuple(line) for line in json.loads(gzip.decompress(path.read_bytes()))["events"]]
    simulated = simulated_step()
    matcher = difflib.SequenceMatcher(
        None, [line[:2] for line in measured], [line[:2] for line in simulated], autojunk=False
    )
    matched = sum(block.size for block in matcher.get_matching_blocks())
    left: dict[str, collections.Counter[str]] = {"measured": collections.Counter(), "simulated": collections.Counter()}
    for tag, a0, a1, b0, b1 in matcher.get_opcodes():
        if tag != "equal":
            left["measured"].update(f"{kind} {size} {where}" for kind, size, where in measured[a0:a1])
            left["simulated"].update(f"{kind} {size} {where}" for kind, size, where in simulated[b0:b1])
    return {
        "num_measured": len(measured),
        "num_simulated": len(simulated),
        "matched_share": 2 * matched / (len(measured) + len(simulated)),
        "unmatched": {side: dict(counter.most_common()) for side, counter in left.items()},
    }


def main(arguments: Sequence[str]) -> None:
    """Record or compare."""
    command, path = arguments[0], Path(arguments[1])
    if command == "record":
        record(path)
    else:
        print(json.dumps(compare(path), indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
