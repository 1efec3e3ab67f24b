"""Keep large optimizer states in memory that CUDA's driver moves to the host when the GPU is full."""

from memory_harness.configs.optimizers import OPTIMIZERS, OWN_DECAY
from memory_harness.configs.schema import RunConfig
from memory_harness.probes.findings import Fix


def _apply(config: RunConfig) -> RunConfig | None:
    kind = OPTIMIZERS.get(config.train.optimizer)
    if kind is None or not kind.paged:
        return None
    decay = config.train.weight_decay
    if decay is None and kind.paged in OWN_DECAY and config.train.optimizer not in OWN_DECAY:
        decay = 0.0  # as it was
    return config.with_fields(optimizer=kind.paged, weight_decay=decay)


PAGED_OPTIMIZER = Fix(
    name="paged-optimizer",
    title="keep the optimizer's state in pages that may move to the host",
    addresses=("optimizer-lazy", "head-trainable", "model-states-exceed-budget"),
    equivalence="numerical",
    change=_apply,
    slowdown=1.01,
    cost="states of 100 000 values and more wait for the bus when they have been moved out",
)
