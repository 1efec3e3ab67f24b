"""Keep large optimizer states in memory that CUDA's driver moves to the host when the GPU is full."""

from memory_harness.probes.findings import Fix, set_fields

PAGED_OPTIMIZER = Fix(
    name="paged-optimizer",
    title="keep the optimizer's state in pages that may move to the host",
    addresses=("optimizer-lazy", "head-trainable"),
    equivalence="numerical",
    apply=set_fields({"optimizer": "paged_adamw_8bit"}),
    slowdown=1.01,
    cost="states of 100 000 values and more wait for the bus when they have been moved out",
)
