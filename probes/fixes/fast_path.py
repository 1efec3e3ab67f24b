"""Compute each 4-bit product with its adapter as one function, by liger-kernel's kernels where that is installed."""

from importlib.util import find_spec

from memory_harness.configs.models import find_model
from memory_harness.configs.schema import RunConfig
from memory_harness.probes.findings import Fix


def _apply(config: RunConfig) -> RunConfig | None:
    if config.model.fast_path != "off" or config.model.quantization not in ("nf4", "fp4") or config.lora.use_dora:
        return None
    if not find_model(config.model.model).is_like_llama:
        return None
    return config.with_fields(fast_path="torch" if find_spec("liger_kernel") is None else "liger")


FAST_PATH = Fix(
    name="fast-path",
    title="compute each 4-bit product with its adapter as one function",
    addresses=(),
    equivalence="numerical",
    change=_apply,
    slowdown=None,
    cost="a buffer for the largest weight in 16 bits",
)
