"""Compute the loss by liger-kernel's fused kernel, where that is installed."""

from importlib.util import find_spec

from memory_harness.configs.models import find_model
from memory_harness.configs.schema import RunConfig
from memory_harness.probes.findings import Fix


def _apply(config: RunConfig) -> RunConfig | None:
    # its kernels need a GPU; what is simulated here is meant to run where the probe runs
    if config.train.loss == "liger" or find_spec("liger_kernel") is None:
        return None
    if not find_model(config.model.model).is_like_llama:
        return None
    return config.with_fields(loss="liger")


LIGER_LOSS = Fix(
    name="liger-loss",
    title="compute the loss by liger-kernel's fused kernel",
    addresses=("eval-batch-logits", "logits-fp32-copies", "longest-sample"),
    equivalence="numerical",
    change=_apply,
    slowdown=1.0,
    cost="in float16, gradients below 6e-8 per token are lost; one more dependency",
)
