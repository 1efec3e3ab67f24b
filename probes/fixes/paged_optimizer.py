"""Keep large optimizer states in memory that CUDA's driver moves to the host when the GPU is full."""

from memory_harness.configs.schema import RunConfig
from memory_harness.probes.findings import Fix


def _apply(config: RunConfig) -> RunConfig | None:
    if config.train.optimizer == "paged_adamw_8bit":
        return None
    return config.with_fields(optimizer="paged_adamw_8bit")


PAGED_OPTIMIZER = Fix(
    name="paged-optimizer",
    title="keep the optimizer's state in pages that may move to the host",
    addresses=("optimizer-lazy", "head-trainable"),
    equivalence="numerical",
    apply=_apply,
    slowdown=1.01,
    cost="states of 100 000 values and more wait for the bus when they have been moved out",
)
