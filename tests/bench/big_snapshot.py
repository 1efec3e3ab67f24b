"""How long a memory snapshot takes to be read, and in how much memory: `python -m tests.bench.big_snapshot --mb 1000`.

The snapshot is synthetic: a training loop's allocations under stacks of 30 frames, laid out and pickled as
`torch.cuda.memory._dump_snapshot` does: each event has a list of its own, whose frames are shared.
"""

from __future__ import annotations

import argparse
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memory_harness.configs.units import GIB, MIB

NUM_LAYERS, NUM_FRAMES = 32, 30
TENSORS_OF_A_LAYER = 40
BYTES_OF_AN_EVENT = 195
"""in the file, measured"""


def big_snapshot(num_events: int) -> dict[str, Any]:
    """Return a snapshot with about so many events, whose last allocation fails."""
    events = list(_events(num_events))
    frames = events[-1]["frames"]
    weights = {"size": 8 * GIB, "requested_size": 8 * GIB, "address": 0, "state": "active_allocated", "frames": frames}
    rest = {"size": GIB, "requested_size": GIB, "address": 8 * GIB, "state": "inactive", "frames": []}
    segment = {"device": 0, "address": 0, "total_size": 9 * GIB, "allocated_size": 8 * GIB, "segment_type": "large"}
    return {"segments": [segment | {"blocks": [weights, rest]}], "device_traces": [events], "allocator_settings": {}}


def _events(num_events: int) -> Iterator[dict[str, Any]]:
    stacks = [_stack(layer, phase) for phase in ("forward", "backward") for layer in range(NUM_LAYERS)]
    time_us = made = 0
    while made < num_events:
        for stack in stacks:
            for action in ("alloc", "free_requested", "free_completed"):
                for tensor in range(TENSORS_OF_A_LAYER):
                    time_us += 7
                    made += 1
                    place = {"addr": 9 * GIB + tensor * 64 * MIB, "size": MIB * (1 + tensor), "stream": 0}
                    yield {
                        "action": action,
                        **place,
                        "time_us": time_us,
                        "frames": list(stack),
                        "compile_context": "N/A",
                    }
    yield {"action": "oom", "size": 4 * GIB, "device_free": 2 * GIB, "stream": 0, "time_us": time_us, "frames": stack}


def _stack(layer: int, phase: str) -> list[dict[str, Any]]:
    names = [("train", "train.py"), (phase, "train.py"), (f"layer{layer}", "model.py")]
    names += [(f"_call_impl{n}", "site-packages/torch/nn/modules/module.py") for n in range(NUM_FRAMES - 3)]
    return [{"name": name, "filename": f"/home/user/{path}", "line": layer + 1} for name, path in reversed(names)]


def main() -> None:
    """Write a snapshot, replay it in a process of its own, and say what that took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mb", type=int, default=1000)
    size = parser.parse_args().mb
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "big.pickle")
        with path.open("wb") as file:
            pickle.dump(big_snapshot(size * 10**6 // BYTES_OF_AN_EVENT), file)
        begin = time.monotonic()
        command = [sys.executable, "run_probe.py", "--replay", str(path)]
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - begin
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        print(f"{path.stat().st_size / 10**6:.0f} MB read in {seconds:.0f} s, {peak / GIB:.2f} GiB resident at most")


if __name__ == "__main__":
    main()
