"""Keep the optimizer's two moments in 8 bits each."""

from memory_harness.configs.schema import RunConfig
from memory_harness.probes.findings import Fix


def _apply(config: RunConfig) -> RunConfig | None:
    return config.with_fields(optimizer="adamw_8bit") if config.train.optimizer == "adamw" else None


OPTIMIZER_8BIT = Fix(
    name="optimizer-8bit",
    title="keep the optimizer's state in 8 bits",
    addresses=("optimizer-lazy", "head-trainable"),
    equivalence="numerical",
    apply=_apply,
    slowdown=1.0,
    cost="the optimizer's moments are rounded",
)
