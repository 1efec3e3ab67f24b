"""Build a key/value cache in generation only."""

from memory_harness.configs.schema import RunConfig
from memory_harness.probes.findings import Fix


def _apply(config: RunConfig) -> RunConfig | None:
    return config.with_fields(use_cache=False) if config.model.use_cache else None


CACHE_OFF = Fix(
    name="cache-off",
    title="build no key/value cache outside generation",
    addresses=("eval-use-cache",),
    equivalence="exact",
    apply=_apply,
    slowdown=1.0,
    cost="nothing",
)
