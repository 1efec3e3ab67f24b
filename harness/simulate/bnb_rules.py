"""Which of bitsandbytes' kernels a CUDA card would run: asked of the installed library's own source.

bitsandbytes decides per shape and card between a fused 4-bit kernel (no extra memory) and dequantise-then-multiply (a
full copy of the weight for a moment). Its CUDA module cannot be imported without CUDA, so only the deciding function is
compiled from it; a copy of the rule here would go stale with the next release.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from memory_harness.harness.log.errors import DeviceError

_MODULE = "bitsandbytes.backends.cuda.ops"
_RULE = "_gemm_4bit_use_custom_cuda"
_CONSTANTS = ("_GEMM_4BIT_CUSTOM_FLOOR_M", "_gemm_4bit_custom_max_m")


@functools.cache
def fused_gemm_rule(num_sms: int, capability: tuple[int, int]) -> Callable[[torch.dtype, int, int, int], bool]:
    """Return `rule(dtype, M, N, K)`: whether the card multiplies M rows by an N×K 4-bit weight without dequantising it.

    Raises:
        DeviceError: the installed bitsandbytes has no such rule, so its memory use is unknown.
    """
    function, constants = _compiled_rule()
    namespace: dict[str, Any] = {
        "torch": torch,
        "functools": functools,
        "_gpu_dispatch_props": lambda _: (num_sms, *capability),
        **constants,
    }
    exec(function, namespace)
    decide = namespace[_RULE]
    max_rows = constants["_gemm_4bit_custom_max_m"]
    return lambda dtype, m, n, k: m <= max_rows and bool(decide(0, dtype, m, n, k))


@functools.cache
def _compiled_rule() -> tuple[Any, dict[str, Any]]:
    spec = importlib.util.find_spec(_MODULE)
    if spec is None or spec.origin is None:
        raise DeviceError(f"{_MODULE} is missing: install bitsandbytes 0.50 or newer")
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    functions: list[ast.stmt] = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == _RULE]
    constants = {name: _first_constant(tree, name) for name in _CONSTANTS}
    if not functions or None in constants.values():
        raise DeviceError(
            f"the installed bitsandbytes has no {_RULE}: versions 0.50 and newer within 0.x are supported"
        )
    return compile(ast.Module(functions, []), spec.origin, "exec"), constants


def _first_constant(tree: ast.Module, name: str) -> int | None:
    """Return the first integer assigned to `name`, which is that of CUDA's branch; None without any."""
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=[ast.Name(id=target)], value=ast.Constant(value=int(value))) if target == name:
                return value
    return None
