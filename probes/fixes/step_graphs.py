"""Replay the passes of short micro-batches as CUDA graphs."""

from memory_harness.configs.schema import RunConfig
from memory_harness.configs.step_graphs import reason_against_graphs
from memory_harness.probes.findings import Fix


def _apply(config: RunConfig) -> RunConfig | None:
    if config.model.cuda_graphs != "none" or reason_against_graphs(config) is not None:
        return None
    return config.with_fields(cuda_graphs="auto")


STEP_GRAPHS = Fix(
    name="step-graphs",
    title="replay the passes of short micro-batches as CUDA graphs",
    addresses=(),
    equivalence="numerical",
    change=_apply,
    slowdown=None,
    cost="a pool of memory that nothing else may use while training",
)
