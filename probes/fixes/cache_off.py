"""Build a key/value cache in generation only."""

from memory_harness.probes.findings import Fix, set_fields

CACHE_OFF = Fix(
    name="cache-off",
    title="build no key/value cache outside generation",
    addresses=("eval-use-cache",),
    equivalence="exact",
    change=set_fields({"use_cache": False}),
    slowdown=1.0,
    cost="nothing",
)
