"""liger-kernel's RMSNorm, rotary embedding and SwiGLU: its kernels on a GPU, elsewhere plain PyTorch with its buffers.

Source: liger_kernel 0.8.5, ops/rms_norm.py, ops/rope.py and ops/swiglu.py. A norm keeps its input and one number per
row, and writes its gradient over that of its output; a rotation takes the place of what is rotated; the gradients of
SwiGLU take the place of gate and up.

Shapes: T rows, H their width, F inner width of a feed-forward block; B batch, N heads, L length, D head dimension.
"""

from __future__ import annotations

import sys
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch

from memory_harness.harness.devices.base import Device
from memory_harness.harness.log.errors import ConfigError
from memory_harness.harness.techniques.fused_products import COMES_FROM

LLAMA_CASTS = (0.0, "llama", True, None)
"""liger-kernel's norm as Llama's: no offset, the mean square alone in float32, the gradient in place, its own grid"""


def use_liger_kernels(model: Any, device: Device) -> None:
    """Let the norms and rotations of a transformers decoder, laid out as Llama's, run by liger-kernel.

    Args:
        model: whose norms are not trained.
        device: where it runs.

    Raises:
        ConfigError: it is a GPU, and liger-kernel is not installed.
    """
    if device.torch_device.type == "cuda" and find_spec("liger_kernel") is None:
        raise ConfigError(
            "--fast-path liger: liger-kernel is not installed; pip install liger-kernel, or use --fast-path torch"
        )
    for module in model.modules():
        if hasattr(module, "variance_epsilon"):
            module.forward = partial(_norm, module, device)
    for layer in model.model.layers:
        layer.self_attn.forward = partial(_attention, layer.self_attn, layer.self_attn.forward, device)


def _norm(module: Any, device: Device, hidden: torch.Tensor) -> torch.Tensor:
    out = _normal(module.weight, module.variance_epsilon, device, hidden)
    if torch.is_grad_enabled():
        again = partial(_normal, module.weight, module.variance_epsilon, device)
        setattr(out, COMES_FROM, (again, hidden))
    return out


def _normal(weight_H: torch.Tensor, eps: float, device: Device, hidden: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor
    if hidden.is_cuda:
        from liger_kernel.ops.rms_norm import LigerRMSNormFunction

        out = LigerRMSNormFunction.apply(hidden, weight_H, eps, *LLAMA_CASTS)
    else:
        out = _PlainNorm.apply(hidden, weight_H, eps, device)
    return out


def _attention(module: Any, forward: Any, device: Device, *args: Any, **kwargs: Any) -> Any:
    """Run an attention layer whose code finds the rotation in its own module: there is no other way to give it one."""
    modeling = sys.modules[type(module).__module__]
    own = modeling.apply_rotary_pos_emb
    modeling.apply_rotary_pos_emb = partial(_rotate, device)  # type: ignore[attr-defined]
    try:
        return forward(*args, **kwargs)
    finally:
        modeling.apply_rotary_pos_emb = own  # type: ignore[attr-defined]


def _rotate(
    device: Device, query_BNLD: torch.Tensor, key_BNLD: torch.Tensor, cos_BLD: torch.Tensor, sin_BLD: torch.Tensor
) -> Any:
    if query_BNLD.is_cuda:
        from liger_kernel.ops.rope import LigerRopeFunction

        return LigerRopeFunction.apply(query_BNLD, key_BNLD, cos_BLD, sin_BLD)
    return _PlainRotation.apply(query_BNLD, key_BNLD, cos_BLD, sin_BLD, device)


class LigerGate:
    """SwiGLU whose gradients take the place of gate and up."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def forward(self, gate_TF: torch.Tensor, up_TF: torch.Tensor) -> torch.Tensor:
        """Return the product in memory of its own."""
        if gate_TF.is_cuda:
            from liger_kernel.ops.swiglu import swiglu_forward

            product_TF: torch.Tensor = swiglu_forward(gate_TF, up_TF)[2]
            return product_TF
        out_TF = torch.empty_like(gate_TF)
        with self._device.on_host():
            out_TF.copy_(torch.nn.functional.silu(gate_TF.float()).to(up_TF.dtype) * up_TF)
        return out_TF

    def backward(
        self, grad_TF: torch.Tensor, gate_TF: torch.Tensor, up_TF: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write them over the values."""
        if gate_TF.is_cuda:
            from liger_kernel.ops.swiglu import swiglu_backward

            grads: tuple[torch.Tensor, torch.Tensor] = swiglu_backward(gate_TF, up_TF, grad_TF)
            return grads
        with self._device.on_host():
            grad_gate_TF = torch.ops.aten.silu_backward(grad_TF.float() * up_TF, gate_TF.float())
            grad_up_TF = grad_TF * torch.nn.functional.silu(gate_TF.float())
            gate_TF.copy_(grad_gate_TF)
            up_TF.copy_(grad_up_TF)
        return gate_TF, up_TF


class _PlainNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight_H: torch.Tensor, eps: float, device: Device) -> torch.Tensor:
        rows_TH = hidden.contiguous().view(-1, hidden.shape[-1])
        out_TH = torch.empty_like(rows_TH)
        scale_T1 = torch.empty(len(rows_TH), 1, dtype=torch.float32, device=hidden.device)
        with device.on_host():
            wide_TH = rows_TH.float()
            scale_T1.copy_(torch.rsqrt(wide_TH.square().mean(-1, keepdim=True) + eps))
            out_TH.copy_((wide_TH * scale_T1).to(rows_TH.dtype) * weight_H)
        ctx.save_for_backward(rows_TH, weight_H, scale_T1)
        ctx.device = device
        return out_TH.view(hidden.shape)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows_TH, weight_H, scale_T1 = ctx.saved_tensors
        grad = grad_outputs[0].contiguous()
        with ctx.device.on_host():
            normal_TH = rows_TH.float() * scale_T1
            weighted_TH = grad.view(rows_TH.shape) * weight_H.float()
            mean_T1 = (weighted_TH * normal_TH).mean(-1, keepdim=True)
            grad.view(rows_TH.shape).copy_(scale_T1 * (weighted_TH - normal_TH * mean_T1))
        return grad, None, None, None


class _PlainRotation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, cos: Any, sin: Any, device: Device) -> Any:
        ctx.save_for_backward(cos.contiguous(), sin.contiguous())
        ctx.device = device
        return _rotated(query, cos, sin, device), _rotated(key, cos, sin, device)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        cos_BLD, sin_BLD = ctx.saved_tensors
        with ctx.device.on_host():
            back_BLD = -sin_BLD
        grads = [_rotated(grad, cos_BLD, back_BLD, ctx.device) for grad in grad_outputs]
        return *grads, None, None, None


def _rotated(values_BNLD: torch.Tensor, cos_BLD: torch.Tensor, sin_BLD: torch.Tensor, device: Device) -> torch.Tensor:
    """Rotate heads where they lie, a copy where they do not lie one beside the other for each token."""
    values_BLND = values_BNLD.transpose(1, 2).contiguous()
    with device.on_host():
        first, second = values_BLND.chunk(2, -1)
        turned_BLND = torch.cat((-second, first), -1)
        cos_BL1D, sin_BL1D = cos_BLD.unsqueeze(2), sin_BLD.unsqueeze(2)
        values_BLND.copy_(values_BLND * cos_BL1D + turned_BLND * sin_BL1D)
    return values_BLND.transpose(1, 2)
