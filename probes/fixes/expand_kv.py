"""Repeat keys and values for every query head, so that attention takes a kernel without L x L scores."""

from memory_harness.configs.models import find_model
from memory_harness.configs.schema import RunConfig
from memory_harness.probes.findings import Fix


def _apply(config: RunConfig) -> RunConfig | None:
    if config.model.expand_kv or not find_model(config.model.model).is_like_llama:
        return None
    return config.with_fields(expand_kv=True)


EXPAND_KV = Fix(
    name="expand-kv",
    title="repeat keys and values for every query head",
    addresses=("attention-math-fallback",),
    equivalence="numerical",
    change=_apply,
    slowdown=1.01,
    cost="copies of keys and values, one layer at a time",
)
