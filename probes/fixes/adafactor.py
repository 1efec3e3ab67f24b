"""Train with Adafactor, which keeps a row and a column of numbers for each matrix."""

from memory_harness.configs.optimizers import OPTIMIZERS
from memory_harness.configs.schema import RunConfig
from memory_harness.probes.findings import Fix


def _apply(config: RunConfig) -> RunConfig | None:
    kind = OPTIMIZERS.get(config.train.optimizer)
    if kind is None or not kind.state_bytes or config.train.finetuning_type != "full":
        return None  # of an adapter, the states are small
    return config.with_fields(optimizer="adafactor", optim_args=None)


ADAFACTOR = Fix(
    name="adafactor",
    title="train with Adafactor, which keeps almost nothing of a weight",
    addresses=("model-states-exceed-budget",),
    equivalence="data",
    change=_apply,
    slowdown=1.0,
    cost="another optimizer learns otherwise; its learning rate may have to be another",
)
