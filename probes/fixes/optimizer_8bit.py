"""Keep the optimizer's two moments in 8 bits each."""

from __future__ import annotations

from configs.schema import RunConfig
from probes.findings import Fix


def _apply(config: RunConfig) -> RunConfig | None:
    return None if config.train.optimizer == "adamw_8bit" else config.with_fields(optimizer="adamw_8bit")


OPTIMIZER_8BIT = Fix(
    name="optimizer-8bit",
    title="keep the optimizer's state in 8 bits",
    addresses=("optimizer-lazy", "head-trainable"),
    equivalence="numerical",
    apply=_apply,
)
