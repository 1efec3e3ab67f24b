"""Let PyTorch pick the attention kernel, rather than one that stores all scores."""

from memory_harness.probes.findings import Fix, set_fields

AUTO_ATTENTION = Fix(
    name="auto-attention",
    title="let PyTorch pick the attention kernel",
    addresses=("attention-math-fallback",),
    equivalence="numerical",
    change=set_fields({"attention": "auto", "sdpa_backends": ()}),
    slowdown=1.0,
    cost="nothing: the fused kernels are faster",
)
