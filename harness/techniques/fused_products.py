"""4-bit products with their adapters as one autograd function, and each feed-forward block as two.

A weight is dequantised into one buffer that all products share. Adapters of one input multiply it as one: products of
so few columns take as long as reading it. Autograd would keep the adapter's input, its copy in float32 or under
dropout, both of its products and the block's inner activations; these functions keep the input, or
what it is computed from again, what the adapter has made of it (rank r), and in a feed-forward block the products of
gate and up, from which their product is computed again; or none of the block, which then computes all again. Without a
gradient everything runs as before.

Shapes: T tokens of the batch, I and O inputs and outputs of a product, R rank, F inner width of a feed-forward block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from bitsandbytes.cextension import lib
from bitsandbytes.functional import QuantState, dequantize_4bit
from bitsandbytes.nn import Linear4bit
from peft.tuners.lora import LoraLayer
from torch.utils.checkpoint import checkpoint

from memory_harness.harness.devices.base import Device

Gradients = list[torch.Tensor | None]
SWIGLU = ("silu", "swish")
"""what transformers calls the activation"""
KERNELS = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}
"""as bitsandbytes calls them"""
NUM_TRAINABLE = 3
"""of a product: bias, and the adapter's A and B"""
Source = tuple[Any, ...] | None
"""what computes a product's input again, and what it takes"""
COMES_FROM = "computed_from"
"""attribute of a tensor that is cheaper to compute again than to keep: its `Source`"""


class Gate(Protocol):
    """What a feed-forward block makes of the products of gate and up."""

    def forward(self, gate_TF: torch.Tensor, up_TF: torch.Tensor) -> torch.Tensor:
        """Return `silu(gate) * up`."""

    def backward(
        self, grad_TF: torch.Tensor, gate_TF: torch.Tensor, up_TF: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the gradients of gate and up, which may take the place of their values."""


class PlainGate:
    """PyTorch's own operators."""

    def forward(self, gate_TF: torch.Tensor, up_TF: torch.Tensor) -> torch.Tensor:
        """Return the product in memory of its own."""
        return torch.nn.functional.silu(gate_TF).mul_(up_TF)

    def backward(
        self, grad_TF: torch.Tensor, gate_TF: torch.Tensor, up_TF: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return them in memory of their own."""
        grad_gate_TF = torch.ops.aten.silu_backward(grad_TF * up_TF, gate_TF)
        return grad_gate_TF, torch.nn.functional.silu(gate_TF).mul_(grad_TF)


class WeightBuffer:
    """Room for one dequantised weight, the largest of a model, and for its scales.

    Args:
        num_values: that the weight has.
        num_scales: that it has, one for each block of values.
        dtype: in which products are computed.
        device: where they are.
    """

    def __init__(self, num_values: int, num_scales: int, dtype: torch.dtype, device: Device) -> None:
        self.values = torch.empty(num_values, dtype=dtype, device=device.torch_device)
        self.scales = torch.empty(num_scales, dtype=torch.float32, device=device.torch_device)
        self.dtype = dtype
        self._device = device

    def dequantised(self, packed: torch.Tensor, state: QuantState) -> torch.Tensor:
        """Return a weight (O, I) where the next one takes its place."""
        weight_OI = self.values[: state.shape.numel()].view(state.shape)
        if weight_OI.is_cuda:
            self._launch(packed, state, weight_OI)
        else:  # without values the copy stands for the kernel's traffic
            with self._device.on_host():
                weight_OI.copy_(weight_OI if weight_OI.is_meta else dequantize_4bit(packed, state))
        return weight_OI

    def _launch(self, packed: torch.Tensor, state: QuantState, weight_OI: torch.Tensor) -> None:
        """Run bitsandbytes' kernels; its operators take the host as long as the kernels take the GPU.

        Source: bitsandbytes/backends/cuda/ops.py, `_dequantize_blockwise_impl` and `_dequantize_4bit_impl`.
        """
        stream = torch._C._cuda_getCurrentRawStream(weight_OI.device.index)
        scales, nested = state.absmax, state.state2
        if state.nested:
            scales = self.scales[: state.absmax.numel()]
            places = (nested.code.data_ptr(), state.absmax.data_ptr(), nested.absmax.data_ptr(), scales.data_ptr())
            lib.cdequantize_blockwise_fp32(*places, nested.blocksize, scales.numel(), stream)
            scales += state.offset
        kernel = getattr(lib, f"cdequantize_blockwise_{KERNELS[self.dtype]}_{state.quant_type}")
        places = (None, packed.data_ptr(), scales.data_ptr(), weight_OI.data_ptr())
        kernel(*places, state.blocksize, weight_OI.numel(), stream)


@dataclass(frozen=True)
class Product:
    """What a product does beside what is trained."""

    packed: torch.Tensor
    state: QuantState
    buffer: WeightBuffer
    scale: float
    """of the adapter's output"""
    dropout: float
    """of the adapter's input; 0 out of training"""

    def weight(self) -> torch.Tensor:
        """Return the weight (O, I), until another product asks for its own."""
        return self.buffer.dequantised(self.packed, self.state)

    def rows(self, values: torch.Tensor) -> torch.Tensor:
        """Return values (..., I) as (T, I), in the type of the product."""
        return values.reshape(-1, values.shape[-1]).to(self.buffer.dtype)


Joint = torch.Tensor | None
"""of all adapters of one input, side by side (T, R) or one below the other (R, I); None without adapters"""


class _Adapters:
    """The A of the adapters of one input, which multiply it as one; under dropout each alone, as each sees its own.

    R: their ranks together. Their dropout is the same.
    """

    def __init__(self, products: Sequence[Product], trainable: Sequence[Any]) -> None:
        self._each_RI = trainable[1::NUM_TRAINABLE]
        self._ranks = [0 if a_RI is None else len(a_RI) for a_RI in self._each_RI]
        self._dropout = max(product.dropout for product in products)

    def parts(self, joint: Joint, dim: int = 1) -> Sequence[Any]:
        """Return the part of each product, empty or None where it has no adapter."""
        if joint is None or len(self._ranks) == 1:
            return [joint] * len(self._ranks)
        return joint.split_with_sizes(self._ranks, dim)

    def narrow(self, rows_TI: torch.Tensor) -> tuple[Joint, list[torch.Tensor | None]]:
        """Return what they make of the input (T, R), and dropout's masks (T, I), as many as products, or None."""
        masks: list[torch.Tensor | None] = [None] * len(self._ranks)
        a_RI = self._stacked(rows_TI.dtype)
        if a_RI is None:
            return None, masks
        narrow_TR = rows_TI.new_empty(len(rows_TI), len(a_RI))
        parts = zip(self._by_input(a_RI, 0), self._by_input(narrow_TR, 1), strict=True)
        for number, (part_RI, into_TR) in enumerate(parts):
            dropped_TI = rows_TI
            if self._dropout:
                dropped_TI, masks[number] = torch.native_dropout(rows_TI, self._dropout, True)
            torch.mm(dropped_TI, part_RI.t(), out=into_TR)
        return narrow_TR, masks

    def gradients(self, rows_TI: torch.Tensor, grad_TR: torch.Tensor, masks: Sequence[Any]) -> Gradients:
        """Return the gradient of each product's A, None where it has no adapter."""
        grad_RI = rows_TI.new_empty(grad_TR.shape[1], rows_TI.shape[1])
        parts = self._by_input(grad_TR, 1), self._by_input(grad_RI, 0)
        for part_TR, into_RI, mask_TI in zip(*parts, masks, strict=False):
            torch.mm(part_TR.t(), self._dropped(rows_TI, mask_TI), out=into_RI)
        found = zip(self._each_RI, self.parts(grad_RI, 0), strict=True)
        return [None if a_RI is None else part_RI.to(a_RI.dtype) for a_RI, part_RI in found]

    def add_gradient_of_input(self, grad_TI: torch.Tensor, grad_TR: Joint, masks: Sequence[Any]) -> None:
        """Add theirs to that of the products."""
        a_RI = self._stacked(grad_TI.dtype)
        if a_RI is None or grad_TR is None:
            return
        parts = self._by_input(grad_TR, 1), self._by_input(a_RI, 0)
        for part_TR, part_RI, mask_TI in zip(*parts, masks, strict=False):
            if mask_TI is None:
                grad_TI.addmm_(part_TR, part_RI)
            else:
                grad_TI.add_(self._dropped(part_TR @ part_RI, mask_TI))

    def _stacked(self, dtype: torch.dtype) -> Joint:
        """Return them (R, I) in the type of the products."""
        adapters = [a_RI for a_RI in self._each_RI if a_RI is not None]
        if len(adapters) > 1:
            return torch.cat(adapters).to(dtype)
        return adapters[0].to(dtype) if adapters else None

    def _by_input(self, joint: torch.Tensor, dim: int) -> Sequence[torch.Tensor]:
        """Return the parts that see the same input."""
        return [part for part in self.parts(joint, dim) if part.numel()] if self._dropout else [joint]

    def _dropped(self, values_TI: torch.Tensor, mask_TI: torch.Tensor | None) -> torch.Tensor:
        """Return values, or a gradient, with dropout's mask over them again."""
        if mask_TI is None:
            return values_TI
        return torch.ops.aten.native_dropout_backward(values_TI, mask_TI, 1 / (1 - self._dropout))


def _multiply(
    products: Sequence[Product], rows_TI: torch.Tensor, trainable: Sequence[Any]
) -> tuple[list[torch.Tensor], Sequence[Any]]:
    """Return each product with its bias and its adapter (T, O), and what `_Adapters.narrow` has made."""
    adapters = _Adapters(products, trainable)
    all_narrow_TR, masks = adapters.narrow(rows_TI)
    found: list[torch.Tensor] = []
    parts = zip(products, _by_product(trainable), adapters.parts(all_narrow_TR), strict=True)
    for product, (bias, _, b_OR), narrow_TR in parts:
        weight_IO = product.weight().t()
        out_TO = rows_TI @ weight_IO if bias is None else torch.addmm(bias.to(rows_TI.dtype), rows_TI, weight_IO)
        if b_OR is not None:
            out_TO.addmm_(narrow_TR, b_OR.to(rows_TI.dtype).t(), alpha=product.scale)
        found.append(out_TO)
    return found, (all_narrow_TR, *masks)


def _gradients_of_trainable(
    adapters: _Adapters,
    products: Sequence[Product],
    grads_TO: Sequence[torch.Tensor],
    trainable: Sequence[Any],
    all_narrow_TR: Joint,
    wanted: Sequence[bool],
) -> tuple[Gradients, Joint]:
    """Return the gradients of each bias and B, where wanted, and that of what the adapters' A have made (T, R)."""
    all_grad_TR = None if all_narrow_TR is None else torch.empty_like(all_narrow_TR)
    found: Gradients = []
    own = adapters.parts(all_narrow_TR), adapters.parts(all_grad_TR)
    parts = zip(products, grads_TO, _by_product(trainable), _by_product(wanted), *own, strict=True)
    for product, grad_TO, (bias, _, b_OR), (bias_wanted, _, b_wanted), narrow_TR, grad_TR in parts:
        grad_bias = grad_TO.sum(0).to(bias.dtype) if bias_wanted else None
        grad_OR = None
        if b_OR is not None:
            torch.addmm(grad_TR, grad_TO, b_OR.to(grad_TO.dtype), beta=0, alpha=product.scale, out=grad_TR)
        if b_wanted:
            # scaled in the adapter's type: in 16 bits the loss scale leaves less room
            grad_OR = (grad_TO.t() @ narrow_TR).to(b_OR.dtype).mul_(product.scale)
        found += [grad_bias, None, grad_OR]
    return found, all_grad_TR


class _Products(torch.autograd.Function):
    """Products of one input, one or several, as one function that adds their gradients of it up in one place.

    What the input can be computed from again, such as a norm's input or a block's products of gate and up, is kept in
    its place.
    """

    @staticmethod
    def forward(
        ctx: Any, values: torch.Tensor, products: Sequence[Product], source: Source, *trainable: Any
    ) -> tuple[torch.Tensor, ...]:
        rows_TI = products[0].rows(values)
        found, kept = _multiply(products, rows_TI, trainable)
        ctx.products, ctx.shape, ctx.dtype = products, values.shape, values.dtype
        if any(ctx.needs_input_grad[3:]):  # where nothing is kept, checkpointing need not compute the product again
            ctx.again, *inputs = source or (_as_it_is, rows_TI)
            ctx.save_for_backward(*trainable, *kept, *inputs)
        return tuple(out_TO.view(*values.shape[:-1], -1) for out_TO in found)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        saved = list(ctx.saved_tensors) or [None] * (NUM_TRAINABLE * len(ctx.products) + 1)
        grad, found = _gradients(ctx, grad_outputs, saved, ctx.needs_input_grad[3:])
        return grad, None, None, *found


class _Gated(torch.autograd.Function):
    """The first half of a feed-forward block: the product of gate and up, which are kept in its place."""

    @staticmethod
    def forward(
        ctx: Any, values: torch.Tensor, gate: Gate, products: Any, source: Source, *trainable: Any
    ) -> tuple[torch.Tensor, ...]:
        rows_TI = products[0].rows(values)
        (gate_TF, up_TF), kept = _multiply(products, rows_TI, trainable)
        ctx.gate, ctx.products, ctx.shape, ctx.dtype = gate, products, values.shape, values.dtype
        has_adapter = any(a_RI is not None for a_RI in trainable[1::NUM_TRAINABLE])
        ctx.mark_non_differentiable(gate_TF, up_TF)
        ctx.set_materialize_grads(False)
        ctx.again, *inputs = (source or (_as_it_is, rows_TI)) if has_adapter else (None,)
        ctx.save_for_backward(gate_TF, up_TF, *trainable, *kept, *inputs)
        return gate.forward(gate_TF, up_TF), gate_TF, up_TF

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gate_TF, up_TF, *saved = ctx.saved_tensors
        if torch._C._autograd._get_current_graph_task_keep_graph():
            gate_TF, up_TF = gate_TF.clone(), up_TF.clone()
        grads_TF = ctx.gate.backward(grad_outputs[0], gate_TF, up_TF)
        del gate_TF, up_TF
        grad, found = _gradients(ctx, grads_TF, saved, ctx.needs_input_grad[4:])
        return grad, None, None, None, *found


def _as_it_is(values: torch.Tensor) -> torch.Tensor:
    return values


def _by_product(trainable: Sequence[Any]) -> list[Sequence[Any]]:
    """Return bias, A and B of each product."""
    return [trainable[start : start + NUM_TRAINABLE] for start in range(0, len(trainable), NUM_TRAINABLE)]


def _gradients(
    ctx: Any, grads: Sequence[torch.Tensor], saved: list[Any], wanted: Sequence[bool]
) -> tuple[torch.Tensor | None, Gradients]:
    """Return the gradient of a function's input, and those of what is trained of its products, where wanted.

    Args:
        ctx: that of the function.
        grads: of its products.
        saved: what is trained of them, what `_multiply` has kept, and what computes the input, which is taken out.
        wanted: of what is trained.
    """
    products = ctx.products
    first, second = NUM_TRAINABLE * len(products), (NUM_TRAINABLE + 1) * len(products) + 1
    trainable, (narrow_TR, *masks), inputs = saved[:first], saved[first:second], saved[second:]
    adapters = _Adapters(products, trainable)
    grads_TO = [product.rows(grad) for product, grad in zip(products, grads, strict=True)]
    found, grad_TR = _gradients_of_trainable(adapters, products, grads_TO, trainable, narrow_TR, wanted)
    if grad_TR is not None and any(wanted[1::NUM_TRAINABLE]):
        found[1::NUM_TRAINABLE] = adapters.gradients(products[0].rows(ctx.again(*inputs)), grad_TR, masks)
    del saved[second:], inputs  # the input goes before its gradient, which is as large
    if not ctx.needs_input_grad[0]:
        return None, found
    grad_TI = grads_TO[0] @ products[0].weight()
    for product, grad_TO in zip(products[1:], grads_TO[1:], strict=True):
        grad_TI.addmm_(grad_TO, product.weight())
    adapters.add_gradient_of_input(grad_TI, grad_TR, masks)
    return grad_TI.view(ctx.shape).to(ctx.dtype), found


def fuse_products(model: Any, dtype: torch.dtype, device: Device) -> WeightBuffer:
    """Let every 4-bit product of a model, with its adapter, be one function; return the buffer for weights.

    Args:
        model: as peft has adapted it, or without an adapter.
        dtype: in which products are computed.
        device: where the model lies.
    """
    layers = [module for module in model.modules() if _is_product(module)]
    adapted = {layer.get_base_layer() for layer in layers if isinstance(layer, LoraLayer)}
    layers = [layer for layer in layers if layer not in adapted]
    states = [_base(layer).weight.quant_state for layer in layers]
    num_values = max(state.shape.numel() for state in states)
    num_scales = max(state.absmax.numel() for state in states)
    buffer = WeightBuffer(num_values, num_scales, dtype, device)
    # named as the model's, which outlive every step
    model.dequantised_weight, model.dequantised_scales = buffer.values, buffer.scales
    for layer in layers:
        layer.forward = partial(_product_of_layer, layer, layer.forward, buffer)
    return buffer


def fuse_projections(model: Any, buffer: WeightBuffer) -> None:
    """Let the products of query, key and value of a transformers decoder, laid out as Llama's, be one function.

    Args:
        buffer: what `fuse_products` returned.
    """
    for layer in model.model.layers:
        attention = layer.self_attn
        siblings = _Siblings([attention.q_proj, attention.k_proj, attention.v_proj])
        for projection in siblings.layers:
            _, plain, _ = projection.forward.args
            projection.forward = partial(_product_of_sibling, siblings, projection, plain, buffer)


def fuse_feed_forward(model: Any, buffer: WeightBuffer, gate: Gate) -> None:
    """Let every feed-forward block of a transformers decoder, laid out as Llama's, keep gate and up alone.

    Blocks of another activation than SwiGLU stay as they are.

    Args:
        buffer: what `fuse_products` returned.
    """
    if model.config.hidden_act not in SWIGLU:
        return
    for layer in model.model.layers:
        layer.mlp.computes_again = False
        layer.mlp.forward = partial(_feed_forward, layer.mlp, layer.mlp.forward, buffer, gate)


def _is_product(module: torch.nn.Module) -> bool:
    return isinstance(_base(module), Linear4bit)


def _base(module: Any) -> Any:
    return module.get_base_layer() if isinstance(module, LoraLayer) else module


def _is_fused(*layers: Any) -> bool:
    """Return whether there are gradients to come, and all adapters are as they are trained."""
    if not torch.is_grad_enabled():
        return False
    adapters = [layer for layer in layers if isinstance(layer, LoraLayer)]
    return not any(layer.disable_adapters or layer.merged for layer in adapters)


def _product_of_layer(layer: Any, plain: Any, buffer: WeightBuffer, values: torch.Tensor) -> torch.Tensor:
    if not _is_fused(layer):
        return plain(values)
    return _apply([layer], buffer, values, getattr(values, COMES_FROM, None))[0]


def _apply(layers: Sequence[Any], buffer: WeightBuffer, values: torch.Tensor, source: Source) -> list[torch.Tensor]:
    products: list[Product] = []
    trainable: list[Any] = []
    for layer in layers:
        product, own = _parts(layer, buffer)
        products.append(product)
        trainable += own
    return [_as_without(out, values) for out in _Products.apply(values, products, source, *trainable)]


def _as_without(out: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return a result in the type that the layer gives it: without mixed precision, that of its input."""
    return out if torch.is_autocast_enabled(values.device.type) else out.to(values.dtype)


class _Siblings:
    """Products of one input that a model asks for one after the other: the first call computes them all."""

    def __init__(self, layers: Sequence[Any]) -> None:
        self.layers = layers
        self._values: torch.Tensor | None = None
        self._waiting: dict[Any, torch.Tensor] = {}

    def product(self, layer: Any, plain: Any, buffer: WeightBuffer, values: torch.Tensor) -> torch.Tensor:
        """Return that of one of the layers."""
        if not _is_fused(*self.layers):
            return plain(values)
        if values is not self._values or layer not in self._waiting:
            found = _apply(self.layers, buffer, values, getattr(values, COMES_FROM, None))
            self._values, self._waiting = values, dict(zip(self.layers, found, strict=True))
        out = self._waiting.pop(layer)
        if not self._waiting:
            self._values = None
        return out


def _product_of_sibling(siblings: _Siblings, *args: Any) -> torch.Tensor:
    return siblings.product(*args)


def _feed_forward(block: Any, plain: Any, buffer: WeightBuffer, gate: Gate, values: torch.Tensor) -> torch.Tensor:
    if not _is_fused(block.gate_proj, block.up_proj, block.down_proj):
        return plain(values)
    if not block.computes_again:
        return _gated(block, buffer, gate, values)
    again, *inputs = getattr(values, COMES_FROM, None) or (_as_it_is, values)
    draws = any(_parts(layer, buffer)[0].dropout for layer in (block.gate_proj, block.up_proj, block.down_proj))
    out: torch.Tensor = checkpoint(
        lambda *inputs: _gated(block, buffer, gate, again(*inputs)),
        *inputs,
        use_reentrant=False,
        preserve_rng_state=draws,
    )
    return out


def _gated(block: Any, buffer: WeightBuffer, gate: Gate, values: torch.Tensor) -> torch.Tensor:
    of_gate, trainable_of_gate = _parts(block.gate_proj, buffer)
    of_up, trainable_of_up = _parts(block.up_proj, buffer)
    source = getattr(values, COMES_FROM, None)
    both = (*trainable_of_gate, *trainable_of_up)
    inner, gate_TF, up_TF = _Gated.apply(values, gate, (of_gate, of_up), source, *both)
    inner = inner.view(*values.shape[:-1], -1)
    (out,) = _apply([block.down_proj], buffer, inner, (gate.forward, gate_TF, up_TF))
    return _as_without(out, values)


def _parts(layer: Any, buffer: WeightBuffer) -> tuple[Product, tuple[Any, ...]]:
    """Return a layer's product, and its bias, A and B; None for those that it lacks."""
    base = _base(layer)
    state, bias = base.weight.quant_state, base.bias
    with torch._C.DisableTorchFunctionSubclass():  # bitsandbytes' class looks into each use of a weight
        packed = base.weight.data
    if layer is base:
        return Product(packed, state, buffer, 0.0, 0.0), (bias, None, None)
    (name,) = layer.active_adapters
    dropout = layer.lora_dropout[name]
    rate = dropout.p if layer.training and isinstance(dropout, torch.nn.Dropout) else 0.0
    product = Product(packed, state, buffer, layer.scaling[name], rate)
    return product, (bias, layer.lora_A[name].weight, layer.lora_B[name].weight)
