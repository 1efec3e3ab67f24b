"""Mixed precision on the meta device, for which PyTorch has no dispatch key there.

CUDA's autocast casts the arguments of some functions to 16 bits, of others to float32. Here the same functions are
replaced by ones that cast first. The CPU's switches carry the state: gradient checkpointing saves and restores them, as
it does CUDA's. A function mode would not do: it is off while `backward` runs, and checkpointing calls them there.

Source: aten/src/ATen/autocast_mode.h, the lists of operators, and autocast_mode.cpp, `cached_cast`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch

from memory_harness.harness.simulate.tracer import lies_on_meta

TO_16_BIT = (
    *("linear", "matmul", "mm", "bmm", "mv", "addmm", "addmv", "addbmm", "baddbmm", "einsum", "chain_matmul", "prelu"),
    *("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
)
"""AT_FORALL_LOWER_PRECISION_FP; attention casts by itself, see `harness.simulate.attention`"""

TO_FLOAT32 = (
    *("exp", "expm1", "log", "log10", "log2", "log1p", "logsumexp", "pow", "square", "reciprocal", "rsqrt", "softplus"),
    *("layer_norm", "rms_norm", "group_norm", "cosine_similarity", "dist", "cdist"),
    *("nll_loss", "kl_div", "l1_loss", "smooth_l1_loss", "huber_loss", "mse_loss", "binary_cross_entropy_with_logits"),
)
"""AT_FORALL_FP32, and what is made of one of them"""

RESULT_IN_FLOAT32 = ("softmax", "log_softmax", "sum", "prod", "cumsum", "cumprod", "vector_norm", "matrix_norm")
"""AT_FORALL_FP32_SET_OPT_DTYPE: the kernels read 16 bits and write float32"""

FUSED = ("softmax", "log_softmax")
"""of these, those whose kernels on CUDA convert float16, where PyTorch converts first on other devices, and bfloat16.

Source: aten/src/ATen/native/SoftMax.cpp
"""

_OPERATORS = {"matmul": ("__matmul__",), "pow": ("__pow__",)}
"""names of the functions that Python's operators call"""

_OWNERS = (torch, torch.Tensor, torch.nn.functional, torch.linalg)


@contextmanager
def meta_autocast() -> Iterator[dict[torch.Tensor, torch.Tensor]]:
    """Within, functions of tensors on the meta device obey mixed precision, and softmax runs as CUDA's does.

    Yields trainable weights with their copies in 16 bits, while a region lasts.
    """
    casts: dict[torch.Tensor, torch.Tensor] = {}
    clear = torch.clear_autocast_cache

    def clear_autocast_cache() -> None:
        casts.clear()
        clear()

    with ExitStack() as stack:
        for names, wrap in (
            (TO_16_BIT, functools.partial(_in_16_bit, casts)),
            (TO_FLOAT32, _in_float32),
            (RESULT_IN_FLOAT32, _into_float32),
        ):
            for owner, name in _places(names):
                stack.enter_context(patch.object(owner, name, wrap(getattr(owner, name))))
        stack.enter_context(patch.object(torch, "clear_autocast_cache", clear_autocast_cache))
        stack.enter_context(patch.object(torch._C._nn, "cross_entropy_loss", _cross_entropy))
        yield casts


def _places(names: tuple[str, ...]) -> Iterator[tuple[Any, str]]:
    """Yield each module or class with the name under which it holds one of the functions."""
    for name in names:
        for owner in _OWNERS:
            for spelling in (name, *_OPERATORS.get(name, ())):
                if callable(getattr(owner, spelling, None)):
                    yield owner, spelling


def _in_16_bit(casts: dict[torch.Tensor, torch.Tensor], function: Callable[..., Any]) -> Callable[..., Any]:
    def cast(tensor: torch.Tensor) -> torch.Tensor:
        dtype = torch.get_autocast_dtype("cpu")
        if tensor.dtype == dtype:
            return tensor
        if not (tensor.requires_grad and tensor.is_leaf):
            return tensor.to(dtype)
        # trainable weights are cast once per autocast region
        if tensor not in casts:
            casts[tensor] = tensor.to(dtype)
        return casts[tensor]

    return _with_casts(function, cast)


def _in_float32(function: Callable[..., Any]) -> Callable[..., Any]:
    return _with_casts(function, torch.Tensor.float)


def _with_casts(function: Callable[..., Any], cast: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., Any]:
    @functools.wraps(function)
    def casting(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_autocast_enabled("cpu"):
            return function(*args, **kwargs)
        # last argument first: the order in which PyTorch's compiled code evaluates the casts
        cast_kwargs = {name: _cast_any(value, cast) for name, value in reversed(kwargs.items())}
        cast_args = [_cast_any(value, cast) for value in reversed(args)]
        return function(*reversed(cast_args), **cast_kwargs)

    return casting


def _cast_any(value: Any, cast: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Return an argument as autocast passes it on: floating-point tensors cast, but for those in double precision."""
    if isinstance(value, torch.Tensor):
        is_cast = lies_on_meta(value) and value.is_floating_point() and value.dtype is not torch.float64
        return cast(value) if is_cast else value
    if isinstance(value, (list, tuple)):
        return type(value)(_cast_any(member, cast) for member in value)
    return value


def _into_float32(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def widening(input: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        is_narrow = lies_on_meta(input) and input.dtype in (torch.float16, torch.bfloat16)
        if is_narrow and kwargs.get("dtype") is None and torch.is_autocast_enabled("cpu"):
            kwargs["dtype"] = torch.float32
        fuses = is_narrow and function.__name__ in FUSED and input.dtype is torch.float16
        if fuses and kwargs.get("dtype") is torch.float32:
            return _ConvertingSoftmax.apply(input, function.__name__ == "softmax")
        return function(input, *args, **kwargs)

    return widening


_cross_entropy_loss = torch._C._nn.cross_entropy_loss
_PROBABILITIES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _cross_entropy(
    input: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None = None,
    reduction: int = 1,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Return the loss; of 16 bits the logarithms of the probabilities are, and only their sum is made in float32.

    Source: aten/src/ATen/native/LossNLL.cpp, `cross_entropy_loss`, which names the type of `log_softmax`.
    """
    is_narrow = lies_on_meta(input) and input.dtype in (torch.float16, torch.bfloat16)
    by_class = target.dtype not in _PROBABILITIES and not label_smoothing
    if not (is_narrow and by_class and torch.is_autocast_enabled("cpu")):
        return _cross_entropy_loss(input, target, weight, reduction, ignore_index, label_smoothing)  # type: ignore[arg-type]
    dimension = 0 if input.dim() == 1 else 1
    logarithms = torch.ops.aten.log_softmax.int(input, dimension, input.dtype).float()
    return torch._C._nn.nll_loss_nd(logarithms, target, weight, reduction, ignore_index)  # type: ignore[arg-type]


class _ConvertingSoftmax(torch.autograd.Function):
    """Softmax, or its logarithm, of 16 bits into float32; without values both allocate the same but going backwards."""

    @staticmethod
    def forward(ctx: Any, input: torch.Tensor, takes_product: bool) -> torch.Tensor:
        out = torch.empty_like(input, dtype=torch.float32)
        ctx.save_for_backward(out)
        ctx.input_dtype, ctx.takes_product = input.dtype, takes_product
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None]:
        (out,) = ctx.saved_tensors
        gradient = torch.empty_like(out, dtype=ctx.input_dtype)
        product = grad_outputs[0] * out if ctx.takes_product else None  # Source: SoftMax.cu, softmax_backward_cuda_out
        del product
        return gradient, None
