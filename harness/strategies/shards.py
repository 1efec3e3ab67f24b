"""Layers whose weights are shared out over GPUs and gathered when they are computed: PyTorch's FSDP2.

Each decoder layer is one group, so are embeddings and head where they are two weights. All else is another, which stays
gathered from the forward pass to the end of the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule, fully_shard


def shard(module: torch.nn.Module, mesh: Any) -> None:
    """Share out the weights of a module, but for those that modules in it have shared out already."""
    fully_shard(module, mesh=mesh)


def share_tables(base: Any, share: Callable[[torch.nn.Module], None]) -> None:
    """Share out embeddings and head, each alone: gathered together, in float32 maybe, they are larger than many layers.

    Args:
        base: the model without what peft puts around it.
        share: shares a module out.
    """
    table, head = base.get_input_embeddings(), base.get_output_embeddings()
    if head is None or head.weight is table.weight:
        return
    share(table)
    share(head)
    table.set_unshard_in_backward(False)  # its gradient does not hang on its weights


def release_gathered(model: Any) -> None:
    """Free the weights that a pass without a backward pass leaves gathered."""
    model.reshard()


def gather(model: Any) -> None:
    """Gather what stays gathered between two passes."""
    model.unshard()


def local_part(tensor: torch.Tensor) -> torch.Tensor:
    """Return what this GPU holds of a tensor."""
    return getattr(tensor, "_local_tensor", tensor)


def sharded_tensors(model: torch.nn.Module) -> Iterator[tuple[tuple[str, ...], torch.Tensor]]:
    """Yield the shards of weights and gradients, and the weights that are gathered, under the weights' names."""
    names = {module: name for name, module in model.named_modules()}
    for shards in _groups(model):
        gradients: list[torch.Tensor] = []
        for weight in shards.fsdp_params:
            name = f"{names[weight._module_info.module]}.{weight._module_info.param_name}"
            yield ("parameter", name), weight._sharded_param_data
            if weight.sharded_param.grad is not None and not gradients:  # the others are parts of the same memory
                gradients.append(local_part(weight.sharded_param.grad))
                yield ("gradient", name), gradients[0]
            for gathered in weight.all_gather_outputs:
                if gathered.untyped_storage().size():
                    yield ("gathered", name), gathered


def pretend_sharded_gradients(model: torch.nn.Module) -> None:
    """Have the gradients that a backward pass leaves: those of a group are parts of one tensor.

    Source: torch/distributed/fsdp/_fully_shard/_fsdp_collectives.py, `foreach_reduce`.
    """
    for shards in _groups(model):
        weights = [weight for weight in shards.fsdp_params if weight.sharded_param.requires_grad]
        if not weights or weights[0].sharded_param.grad is not None:
            continue
        sizes = [weight.padded_sharded_param_size.numel() for weight in weights]
        first = weights[0]._sharded_param_data
        reduced, offset = torch.empty(sum(sizes), dtype=first.dtype, device=first.device), 0
        for weight, size in zip(weights, sizes, strict=True):
            own = torch.as_strided(reduced, weight.sharded_size, weight.contiguous_sharded_stride, offset)
            weight.sharded_param.grad = weight.to_sharded_dtensor(own)
            offset += size


def _groups(model: torch.nn.Module) -> Iterator[Any]:
    for module in model.modules():
        if isinstance(module, FSDPModule):
            yield from module._get_fsdp_state()._fsdp_param_groups
