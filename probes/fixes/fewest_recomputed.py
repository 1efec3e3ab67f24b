"""Compute again in the backward pass only what does not fit otherwise."""

from dataclasses import replace

from memory_harness.configs.schema import RunConfig
from memory_harness.probes.findings import Fix, set_fields


def _apply(config: RunConfig) -> RunConfig | None:
    if config.model.recompute != "all" or not config.model.gradient_checkpointing:
        return None
    return config.with_fields(recompute="auto")


FEWEST_RECOMPUTED = Fix(
    name="fewest-recomputed",
    title="compute again in the backward pass only what does not fit",
    addresses=(),
    equivalence="numerical",
    change=_apply,
    slowdown=None,
    cost="all memory that the headroom leaves",
)


def recomputed_by(rules: str) -> Fix:
    """Return the fix with these rules, as `--recompute` takes them, already found."""
    return replace(FEWEST_RECOMPUTED, change=set_fields({"recompute": rules}))


NOTHING_RECOMPUTED = replace(recomputed_by("none"), name="nothing-recomputed", title="compute nothing again")
"""what a plan tries to see what else would make room"""
