"""Release cached blocks before each evaluation, whose sizes are not training's."""

from memory_harness.probes.findings import Fix, set_fields

CLEAR_BEFORE_EVAL = Fix(
    name="clear-before-eval",
    title="release cached memory before each evaluation",
    addresses=("fragmentation", "eval-leftover"),
    equivalence="exact",
    change=set_fields({"empty_cache_before_eval": True}),
    slowdown=1.0,
    cost="memory is asked of the driver anew once for each evaluation",
)
