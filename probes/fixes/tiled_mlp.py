"""Compute feed-forward blocks over some tokens at a time."""

from __future__ import annotations

from configs.schema import RunConfig
from probes.findings import Fix


def _apply(config: RunConfig) -> RunConfig | None:
    if config.model.tiled_mlp or config.draws_in_mlp:
        return None
    return config.with_fields(tiled_mlp=True)


TILED_MLP = Fix(
    name="tiled-mlp",
    title="compute feed-forward blocks over some tokens at a time",
    addresses=("longest-sample",),
    equivalence="numerical",
    apply=_apply,
    slowdown=1.1,
    cost="weights are dequantised once per chunk",
)
