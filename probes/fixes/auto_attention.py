"""Let PyTorch pick the attention kernel, rather than one that stores all scores."""

from memory_harness.configs.schema import RunConfig
from memory_harness.probes.findings import Fix


def _apply(config: RunConfig) -> RunConfig | None:
    return None if config.model.attention == "auto" else config.with_fields(attention="auto")


AUTO_ATTENTION = Fix(
    name="auto-attention",
    title="let PyTorch pick the attention kernel",
    addresses=("attention-math-fallback",),
    equivalence="numerical",
    apply=_apply,
    slowdown=1.0,
    cost="nothing: the fused kernels are faster",
)
