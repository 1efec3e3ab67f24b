"""Release cached blocks before each evaluation, whose sizes are not training's."""

from memory_harness.configs.schema import RunConfig
from memory_harness.probes.findings import Fix


def _apply(config: RunConfig) -> RunConfig | None:
    return None if config.eval.empty_cache_before_eval else config.with_fields(empty_cache_before_eval=True)


CLEAR_BEFORE_EVAL = Fix(
    name="clear-before-eval",
    title="release cached memory before each evaluation",
    addresses=("fragmentation", "eval-leftover"),
    equivalence="exact",
    apply=_apply,
    slowdown=1.0,
    cost="memory is asked of the driver anew once for each evaluation",
)
