"""Causes that the stacks of a memory snapshot prove: who made what lived at the highest moment, and what failed."""

from __future__ import annotations

from collections import Counter

from memory_harness.configs.units import format_bytes
from memory_harness.harness.log.snapshot import Replayed
from memory_harness.harness.log.snapshot_contents import Contents
from memory_harness.harness.log.traceback_text import Frame
from memory_harness.probes.traceback.diagnosis import diagnose, in_order
from memory_harness.probes.traceback.places import place_of
from memory_harness.probes.traceback.rules import Candidate

HELD_SHARE = 0.1
"""Least share of the peak that a cause holds."""
CAUSES = {
    "collected-outputs": "logits-hoarded",
    "kbit-upcast": "kbit-upcast",
    "restoring": "resume-on-gpu",
    "copying-state": "save-doubles",
    "merging": "merge-dequantises",
}
"""What it means that memory made in a place is still there at the peak."""


def snapshot_causes(replayed: Replayed) -> tuple[Candidate, ...]:
    """Return the causes that a snapshot speaks for, the likely first; none for a simulated one, whose log says more."""
    if replayed.log.run.source != "cuda":
        return ()
    found = _held(replayed.contents)
    if replayed.failed is not None:
        found += diagnose(replayed.failed).candidates
    return in_order(found)


def _held(contents: Contents) -> list[Candidate]:
    sizes: Counter[str] = Counter()
    for held in contents.by_stack:
        frames = [Frame(line.path, line.line, line.function) for line in held.frames]
        found = place_of(frames)
        if found is not None and found[0].id in CAUSES:
            sizes[found[0].id] += held.num_bytes
    candidates = []
    for place, size in sizes.items():
        if size >= HELD_SHARE * contents.peak_allocated_bytes:
            of_peak = f"{format_bytes(size)} of the {format_bytes(contents.peak_allocated_bytes)} at the peak"
            candidates.append(Candidate(CAUSES[place], True, (f"{of_peak} were made there: {place}",)))
    return candidates
