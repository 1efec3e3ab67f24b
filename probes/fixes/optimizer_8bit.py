"""Keep the values that the optimizer keeps for each weight in 8 bits each."""

from memory_harness.configs.optimizers import OPTIMIZERS
from memory_harness.configs.schema import RunConfig
from memory_harness.probes.findings import Fix


def _apply(config: RunConfig) -> RunConfig | None:
    kind = OPTIMIZERS.get(config.train.optimizer)
    return config.with_fields(optimizer=kind.in_8_bits) if kind is not None and kind.in_8_bits else None


OPTIMIZER_8BIT = Fix(
    name="optimizer-8bit",
    title="keep the optimizer's state in 8 bits",
    addresses=("optimizer-lazy", "head-trainable", "model-states-exceed-budget"),
    equivalence="numerical",
    change=_apply,
    slowdown=1.0,
    cost="the optimizer's moments are rounded",
)
