"""Lengths that never repeat cut the allocator's cache into pieces that fit nothing."""

from memory_harness.configs.units import MIB
from memory_harness.probes.faults.base import Fault, with_lengths

LENGTHS = (1500, 200, 1900, 700, 1100, 1300, 300, 1700, 500, 900, 2000, 1600)


FAULT = Fault(
    name="fragmentation",
    title="batches of ever new lengths on a card without expandable segments",
    settings={
        "batching": "dynamic",
        "max_length": 2048,
        "pad_to_multiple_of": 1,
        "expand_kv": True,
        "budget_bytes": 66 * MIB,
    },
    prepare=with_lengths(LENGTHS),
)
