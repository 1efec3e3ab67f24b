"""Repeat keys and values for every query head, so that attention takes a kernel without L x L scores."""

from memory_harness.probes.findings import Fix, set_fields

EXPAND_KV = Fix(
    name="expand-kv",
    title="repeat keys and values for every query head",
    addresses=("attention-math-fallback",),
    equivalence="numerical",
    apply=set_fields({"expand_kv": True}),
    slowdown=1.01,
    cost="copies of keys and values, one layer at a time",
)
