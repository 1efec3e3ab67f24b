"""How long a malloc and its free take in the allocator model, on a trace shaped like a training step.

Run: python -m tests.bench.allocator_speed
"""

from __future__ import annotations

import random
from collections.abc import Callable
from time import perf_counter

from memory_harness.harness.simulate.allocator import CachingAllocator

NUM_WEIGHTS, NUM_LAYERS, EVENTS_PER_LAYER = 2500, 32, 150
Events = list[tuple[int, int]]  # (bytes, slot): bytes > 0 allocates into the slot, 0 frees the slot


def training_step(rng: random.Random, length: int) -> Events:
    """Return a step: transients within each layer, one kept activation per layer that the backward pass frees."""
    sizes = [length * width * itemsize for width in (4096, 1024, 14336) for itemsize in (2, 4)]
    sizes += [length * 4, 512, 4096 * 8 * 2, 8 * 1024 * 4, 4096 * 14336 * 2]
    events: Events = []
    slot = 0
    kept = []
    for layer in range(2 * NUM_LAYERS):
        open_slots = []
        for _ in range(EVENTS_PER_LAYER):
            events.append((rng.choice(sizes), slot))
            open_slots.append(slot)
            slot += 1
            if len(open_slots) > 6:
                events.append((0, open_slots.pop(rng.randrange(len(open_slots)))))
        if layer < NUM_LAYERS:
            kept += [open_slots.pop() for _ in range(3)]
        else:
            events += [(0, kept.pop()) for _ in range(3)]
        events += [(0, freed) for freed in open_slots]
    return events


def replay(allocator: CachingAllocator, events: Events) -> None:
    """Feed one step's events to the allocator."""
    handles: dict[int, int] = {}
    malloc, free = allocator.malloc, allocator.free
    for num_bytes, slot in events:
        if num_bytes:
            handles[slot] = malloc(num_bytes)
        else:
            free(handles.pop(slot))


def milliseconds(call: Callable[[], object], repeats: int = 20) -> float:
    """Return the fastest of several timed calls."""
    times = []
    for _ in range(repeats):
        start = perf_counter()
        call()
        times.append(perf_counter() - start)
    return min(times) * 1e3


def measure(expandable_segments: bool) -> str:
    """Return one line: microseconds per malloc and free pair, and what it costs to memoise a step."""
    rng = random.Random(0)
    allocator = CachingAllocator(80 * 2**30, expandable_segments=expandable_segments)
    for _ in range(NUM_WEIGHTS):
        allocator.malloc(rng.choice((8192, 65536, 32768, 4096 * 1024 // 2, 4096 * 4096 // 2)))
    steps = [training_step(rng, rng.randrange(64, 2048)) for _ in range(10)]
    num_pairs = sum(len(step) for step in steps) / 2
    elapsed = milliseconds(lambda: [replay(allocator, step) for step in steps], repeats=5)
    state = allocator.save()
    num_blocks = sum(len(segment.blocks) for segment in allocator.segments())
    return (
        f"expandable_segments={expandable_segments}: {num_blocks} blocks, {len(steps[0])} events a step, "
        f"{elapsed * 1e3 / num_pairs:.2f} us a malloc and free; fingerprint {milliseconds(allocator.fingerprint):.2f} "
        f"ms, save {milliseconds(allocator.save):.2f} ms, load {milliseconds(lambda: allocator.load(state)):.2f} ms"
    )


if __name__ == "__main__":
    print(measure(False))
    print(measure(True))
