"""Compute each 4-bit product with its adapter as one function, by liger-kernel's kernels where that is installed."""

from importlib.util import find_spec

from memory_harness.configs.model_rules import fast_path_problems
from memory_harness.configs.models import find_model
from memory_harness.configs.schema import RunConfig
from memory_harness.probes.findings import Fix


def _apply(config: RunConfig) -> RunConfig | None:
    if config.model.fast_path != "off" or not find_model(config.model.model).is_like_llama:
        return None
    changed = config.with_fields(fast_path="torch" if find_spec("liger_kernel") is None else "liger")
    return None if fast_path_problems(changed) else changed


FAST_PATH = Fix(
    name="fast-path",
    title="compute each 4-bit product with its adapter as one function",
    addresses=(),
    equivalence="numerical",
    change=_apply,
    slowdown=None,
    cost="a buffer for the largest weight in 16 bits",
)
