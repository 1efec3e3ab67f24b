"""What CUDA would run where the CPU runs something else: the operators whose allocations differ.

Functions (dropout, attention) are replaced before PyTorch decomposes them for the CPU; operators (matrix products,
bitsandbytes) are replaced as they are dispatched. Everything else allocates the same on both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch

from memory_harness.configs.cards import Card
from memory_harness.harness.simulate import positions
from memory_harness.harness.simulate.attention import scaled_dot_product_attention
from memory_harness.harness.simulate.bnb_rules import fused_gemm_rule
from memory_harness.harness.simulate.flash_attention import counted_tokens, flash_attention_2, variable_lengths
from memory_harness.harness.simulate.reductions import reduction_buffers
from memory_harness.harness.simulate.tracer import HOST, Lowering, Tracer, lies_on_meta

aten = torch.ops.aten

GROUPED_ROW_BYTES = 16
"""to a multiple of which a grouped product's rows are padded"""

CUBLASLT_WORKSPACE_BYTES = 2**20
"""Source: aten/src/ATen/cuda/CublasHandlePool.cpp, the default of CUBLASLT_WORKSPACE_SIZE; measured on an H200"""

FOREACH_CHUNK = 65_536
"""values that a block takes of one of many tensors. Source: aten/src/ATen/native/cuda/MultiTensorApply.cuh"""

MAIN_WORKSPACE = ("workspace", "main")
AUTOGRAD_WORKSPACE = ("workspace", "autograd")


@contextmanager
def replaced_functions(tracer: Tracer, card: Card, attention: str) -> Iterator[None]:
    """Within, the functions that PyTorch decomposes in another way on the CPU than on CUDA are replaced.

    They are patched, not intercepted by a function mode: such a mode is off while `backward` runs, and gradient
    checkpointing calls them there.
    """
    from transformers.integrations import moe

    sdpa = partial(scaled_dot_product_attention, tracer, card, attention)
    # older cards get transformers' loop over the experts, whose backward pass makes gradients of frozen weights too
    has_grouped_mm = card.capability >= (8, 0)
    with (
        patch.multiple(torch.nn.functional, scaled_dot_product_attention=sdpa, dropout=_dropout, linear=_linear),
        patch.object(moe, "_can_use_grouped_mm", lambda *_: has_grouped_mm),
        patch.object(torch.ops.aten, "_flash_attention_forward", partial(variable_lengths, tracer)),
        flash_attention_2(tracer),
    ):
        yield


def _dropout(input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
    """Drop out through CUDA's fused operator, which makes a result and a boolean mask."""
    if not training or p == 0:
        return input
    result: torch.Tensor = torch.native_dropout(input, p, True)[0]
    return result


_torch_linear = torch.nn.functional.linear  # the original, which the simulation replaces


def _linear(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Multiply and add a bias: to the product itself where no kernel does both, as for an input that is transposed.

    While a dispatch mode, such as the tracer, is active, PyTorch makes a second result instead.
    Source: aten/src/ATen/native/Linear.cpp, `linear`; aten/src/ATen/TensorSubclassLikeUtils.h.
    """
    is_fused = bias is None or input.dim() == 2 or input.is_contiguous()
    if is_fused or not {type(input), type(weight), type(bias)} <= {torch.Tensor, torch.nn.Parameter}:
        return _torch_linear(input, weight, bias)
    return torch.ops.aten.matmul(input, weight.t()).add_(bias)  # autocast has cast these


def operator_lowerings(card: Card) -> dict[Any, Lowering]:
    """Return operator -> replacement for the card."""
    import bitsandbytes  # noqa: F401  (registers its operators)

    bnb = torch.ops.bitsandbytes
    matmul = partial(_with_workspace, card.cublas_workspace_bytes)
    in_place: dict[Any, Lowering] = dict.fromkeys(_IN_PLACE, _in_place)
    return (
        in_place
        | positions.LOWERINGS
        | {
            aten.add.Tensor: _add,
            **{operator: partial(_fill_fresh, in_place) for operator, in_place in _FILLING.items()},
            aten.scatter_add.default: _scatter_add,
            aten.native_dropout.default: _native_dropout,
            aten._softmax_backward_data.default: _softmax_backward,
            aten._safe_softmax.default: _safe_softmax,
            aten.mm.default: matmul,
            aten.addmm.default: partial(_addmm, card.cublas_workspace_bytes),
            aten.bmm.default: matmul,
            aten.baddbmm.default: matmul,
            aten.sum.dim_IntList: partial(_sum, card),
            aten.mean.dim: partial(_sum, card),
            aten._foreach_norm.Scalar: _norms,
            **dict.fromkeys(_INTO_GIVEN, partial(_matmul_into, card.cublas_workspace_bytes)),
            aten.lift_fresh.default: _host_scalar,
            aten._local_scalar_dense.default: _host_read,
            aten.nonzero.default: _nonzero,
            aten._grouped_mm.default: partial(_grouped_mm, card.cublas_workspace_bytes),
            bnb.gemm_4bit.default: partial(_gemm_4bit, card),
            bnb.int8_vectorwise_quant.default: _quantize_rows,
            bnb.int8_scaled_mm.default: _scaled_mm,
            bnb.int8_mixed_scaled_mm.default: _mixed_scaled_mm,
            bnb.quantize_4bit.default: _quantize,
            bnb.quantize_blockwise.default: _quantize,
        }
    )


_NO_BACKWARD = -1
_task_outside = _NO_BACKWARD


def in_backward() -> bool:
    """Return whether autograd is running: on CUDA that is another thread, with a cuBLAS handle of its own."""
    return bool(torch._C._current_graph_task_id() != _task_outside)


@contextmanager
def outside_backward() -> Iterator[None]:
    """Within, what runs is taken to run outside of the backward pass that is running."""
    global _task_outside
    _task_outside = torch._C._current_graph_task_id()
    try:
        yield
    finally:
        _task_outside = _NO_BACKWARD


def _workspace(tracer: Tracer, num_bytes: int) -> None:
    tracer.sink.ensure(AUTOGRAD_WORKSPACE if in_backward() else MAIN_WORKSPACE, num_bytes, tracer.site())


def _workspace_for_bias(tracer: Tracer) -> None:
    thread = "autograd" if in_backward() else "main"
    tracer.sink.ensure(("workspace", f"{thread} cuBLASLt"), CUBLASLT_WORKSPACE_BYTES, tracer.site())


def _with_workspace(num_bytes: int, tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    out = tracer.run(func, args, kwargs)
    tracer.track(out)
    _workspace(tracer, num_bytes)
    return out


_INTO_GIVEN = tuple(
    operator
    for operator in (
        aten.mm.out,
        aten.addmm.out,
        aten.bmm.out,
        getattr(aten.mm, "dtype_out", None),
        getattr(aten.addmm, "dtype_out", None),
    )
    if operator is not None
)
"""products into memory that the caller has made"""


def _matmul_into(
    num_bytes: int, tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> torch.Tensor:
    out: torch.Tensor = kwargs["out"]
    if not lies_on_meta(out):
        func(*args, **kwargs)
    _workspace(tracer, num_bytes)
    return out


def _sum(card: Card, tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Sum up, or take the mean; many rows, as in a bias' gradient, are added by several blocks through a buffer."""
    out = tracer.run(func, args, kwargs)
    tracer.track(out)
    sizes = reduction_buffers(args[0], args[1], card)
    if sizes:
        with tracer.temporary(sizes):
            pass
    return out


def _norms(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the norm of each tensor; parts of it are added up in a buffer that is as wide as the largest needs.

    Source: aten/src/ATen/native/cuda/ForeachReduceOp.cu, `foreach_tensor_norm_cuda`.
    """
    tensors = args[0]
    num_chunks = max(-(-tensor.numel() // FOREACH_CHUNK) for tensor in tensors)
    with tracer.temporary([len(tensors) * num_chunks * 4]):
        out = tracer.run(func, args, kwargs)
        tracer.track(out)
    return out


def _addmm(num_bytes: int, tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Multiply and add; a bias goes through cuBLASLt, which has a workspace beside cuBLAS' own.

    Source: aten/src/ATen/native/cuda/Blas.cpp, `addmm_out_cuda_impl`.
    """
    out = _with_workspace(num_bytes, tracer, func, args, kwargs)
    if args[0].dim() == 1:
        _workspace_for_bias(tracer)
    return out


def _add(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Add; where autograd sums up gradients in a buffer that nothing else refers to, it does so in place.

    It does not while a dispatch mode, such as the tracer, is active. With gradients on, as where checkpointing computes
    again, the addition is the model's own.
    Source: torch/csrc/autograd/input_buffer.cpp, `accumulate` and `can_accumulate_inplace`.
    """
    if in_backward() and not torch.is_grad_enabled() and _is_gradient_buffer(args[0]):
        return args[0].add_(args[1])
    out = tracer.run(func, args, kwargs)
    positions.keep_sum(tracer, out, *args[:2])
    return out


def _scatter_add(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Add at places; the gradient of `gather` is added to zeros in place, but while a dispatch mode is active.

    Source: aten/src/ATen/native/TensorAdvancedIndexing.cpp, `gather_backward`.
    """
    if in_backward() and not torch.is_grad_enabled() and _is_gradient_buffer(args[0]):
        return args[0].scatter_add_(*args[1:])
    return tracer.run(func, args, kwargs)


_FILLING = {
    aten.scatter_add.default: aten.scatter_add_.default,
    aten.scatter.src: aten.scatter_.src,
    aten.scatter.value: aten.scatter_.value,
    aten.index_add.default: aten.index_add_.default,
    aten.index_put.default: aten.index_put_.default,
}
"""operators, and the ones that write into their first argument"""


def _fill_fresh(in_place: Any, tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Fill a gradient that a backward pass has begun with zeros, in place.

    While a dispatch mode, such as the tracer, is active, PyTorch makes a second one instead.
    Source: torch/csrc/autograd/FunctionsManual.cpp; aten/src/ATen/TensorSubclassLikeUtils.h.
    """
    if in_backward() and not torch.is_grad_enabled() and _is_gradient_buffer(args[0]):
        return in_place(*args, **kwargs)
    return tracer.run(func, args, kwargs)


def _is_gradient_buffer(tensor: torch.Tensor) -> bool:
    """Return whether only autograd's buffer and this very call refer to the tensor and to its memory."""
    # a call from Python has one reference to the tensor less
    uses = tensor._use_count()  # type: ignore[attr-defined]
    storage_uses = torch._C._storage_Use_Count(tensor.untyped_storage()._cdata)
    return bool(uses == 4 and storage_uses == 2)


_IN_PLACE = (
    aten.normal_.default,
    aten._foreach_lerp_.Scalar,
    aten._foreach_addcmul_.Scalar,
    aten._foreach_addcdiv_.ScalarList,
)
"""what initialises weights, and AdamW's steps over all of them: PyTorch takes long to find that there are no values"""


def _in_place(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Change values, where there are any."""
    first = args[0]
    if isinstance(first, torch.Tensor):
        return first if lies_on_meta(first) else func(*args, **kwargs)
    return None if lies_on_meta(first[0]) else func(*args, **kwargs)


def _native_dropout(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return dropout's result and mask; CUDA's kernel allocates the mask first."""
    result, mask = tracer.run(func, args, kwargs)
    tracer.track(mask)
    return result, mask


def _softmax_backward(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the gradient of softmax's input; CUDA's kernel takes the product of gradient and result.

    Source: aten/src/ATen/native/cuda/SoftMax.cu, `softmax_backward_cuda_out`; that of `log_softmax` does not.
    """
    gradient, result = args[:2]
    out = tracer.run(func, args, kwargs)
    tracer.track(out)
    with tracer.temporary([gradient.numel() * max(gradient.element_size(), result.element_size())]):
        return out


def _safe_softmax(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return softmax with zeros in rows that are masked whole: which these are is computed beside.

    Source: aten/src/ATen/native/transformers/attention.cpp, `_safe_softmax`.
    """
    scores, dim = args[:2]
    out = tracer.run(func, args, kwargs)
    tracer.track(out)
    with tracer.temporary([scores.numel(), scores.numel() // scores.size(dim), out.element_size()]):
        return out


def _host_scalar(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Leave `torch.tensor(number)` on the host, where CUDA programs have it too unless it names a device."""
    out = func(*args, **kwargs)
    if out.dim() == 0:
        tracer.rename(out, HOST)
    return out


def _host_read(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Answer `.item()` of a tensor without a value: what was counted, or what the caller has said it is taken to be."""
    (tensor,) = args
    tracer.num_asked += 1
    if lies_on_meta(tensor):
        known = tracer.largest_in(tensor)
        if known is not None:
            return known
        if tracer.assumed_value is not None:
            return tracer.assumed_value
    return func(*args, **kwargs)


def _nonzero(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the places of the real tokens in a mask without values, where their number is known."""
    (mask,) = args
    tracer.num_asked += 1
    if lies_on_meta(mask) and mask.dim() == 1 and mask.dtype is torch.bool and tracer.real_tokens is not None:
        number = counted_tokens(tracer.real_tokens, len(mask))
        return torch.empty((number, 1), dtype=torch.int64, device=mask.device)
    return func(*args, **kwargs)


def _gemm_4bit(card: Card, tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Multiply by a 4-bit weight: fused, or by dequantising the whole weight first.

    Source: bitsandbytes/backends/cuda/ops.py, `_dequant_linear_fallback`.
    """
    # the dispatcher passes every argument by position and leaves out defaults at the end
    x, _, shape = args[:3]
    bias, nested = [*args[6:8], None, None][:2]
    rows, out_features, in_features = x.numel() // x.shape[-1], shape[0], shape[1]
    if fused_gemm_rule(card.num_sms, card.capability)(x.dtype, rows, out_features, in_features):
        return _paused_call(tracer, func, args, kwargs)
    temporary_sizes = [out_features * in_features * x.element_size()]  # the 16-bit weight
    if nested is not None:
        scales_bytes = nested.numel() * 4
        temporary_sizes = [scales_bytes, scales_bytes, *temporary_sizes]  # dequantised in float32, then offset added
    with tracer.temporary(temporary_sizes):
        out = _paused_call(tracer, func, args, kwargs)
        tracer.track(out)
        _workspace(tracer, card.cublas_workspace_bytes)
        if bias is not None:
            _workspace_for_bias(tracer)
    return out


def _quantize_rows(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return a matrix in 8 bits, its rows' scales, and the columns of outliers: none, as without values none is known.

    Source: bitsandbytes/backends/cuda/ops.py, `int8_vectorwise_quant`.
    """
    matrix = args[0]
    if not lies_on_meta(matrix):
        return func(*args, **kwargs)
    threshold = kwargs.get("threshold", args[1] if len(args) > 1 else 0.0)
    scales = matrix.new_empty(matrix.numel() // matrix.shape[-1], dtype=torch.float32)
    tracer.track(scales)
    out = torch.empty(matrix.shape, dtype=torch.int8, device=matrix.device)
    tracer.track(out)
    if not threshold:
        return out, scales, None
    with tracer.temporary([matrix.numel() * matrix.element_size(), matrix.numel()]):  # absolute values, which are large
        return out, scales, matrix.new_empty(0, dtype=torch.int64)


def _scaled_mm(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Multiply in 8 bits: into 32, and from there into 16.

    Source: bitsandbytes/backends/default/ops.py, `int8_scaled_mm`; backends/cuda/ops.py, `int8_mm_dequant`.
    """
    first, second = args[:2]
    if not lies_on_meta(first):
        return func(*args, **kwargs)
    dtype = kwargs.get("dtype", args[5] if len(args) > 5 else None) or torch.float16
    return _product_of_8_bits(tracer, first, second, dtype)


def _mixed_scaled_mm(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Multiply in 8 bits beside no outliers."""
    wide, first, second = args[:3]
    if not lies_on_meta(wide):
        return func(*args, **kwargs)
    return _product_of_8_bits(tracer, first, second, wide.dtype), wide.new_empty(0)


def _product_of_8_bits(tracer: Tracer, first: torch.Tensor, second: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    shape = (*first.shape[:-1], second.shape[0])
    num_elements = math.prod(shape)
    sizes = [num_elements * 4] if dtype is torch.float16 else [num_elements * 4, num_elements * 2]
    with tracer.temporary(sizes):
        out = torch.empty(shape, dtype=dtype, device=first.device)
        tracer.track(out)
    return out


def _grouped_mm(workspace_bytes: int, tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Multiply group by group; in other types than bfloat16 by a loop, which makes the result and nothing else.

    Source: aten/src/ATen/native/GroupedMMUtils.h, `_grouped_mm_fallback` and `create_grouped_gemm_output_tensor`.
    """
    first, second = args[:2]
    if first.dtype is torch.bfloat16 or not lies_on_meta(first):
        return tracer.run(func, args, kwargs)
    shape = _grouped_shape(first, second, kwargs.get("offs", args[2] if len(args) > 2 else None))
    row = math.ceil(shape[-1] * first.element_size() / GROUPED_ROW_BYTES) * GROUPED_ROW_BYTES // first.element_size()
    out = first.new_empty(*shape[:-1], row)[..., : shape[-1]]
    tracer.track(out)
    _workspace(tracer, workspace_bytes)
    return out


def _grouped_shape(first: torch.Tensor, second: torch.Tensor, offsets: torch.Tensor | None) -> tuple[int, ...]:
    rows, columns = first.size(-2), second.size(-1)
    if first.dim() == second.dim() == 3:
        return len(first), rows, columns
    if first.dim() == second.dim():
        assert offsets is not None, "two matrices are cut into groups by their offsets"
        return len(offsets), rows, columns
    return rows, columns


def fused_kernels(card: Card, shapes: Iterable[tuple[int, int]], rows: int, dtype: torch.dtype) -> tuple[bool, ...]:
    """Return, for each (out_features, in_features), whether its product with `rows` rows dequantises no weight."""
    rule = fused_gemm_rule(card.num_sms, card.capability)
    return tuple(rule(dtype, rows, out_features, in_features) for out_features, in_features in shapes)


def _quantize(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    out, absmax = _paused_call(tracer, func, args, kwargs)
    tracer.track(absmax)  # CUDA's kernels allocate the block scales first
    return out, absmax


def _paused_call(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    with tracer.paused():
        return tracer.run(func, args, kwargs)
