"""Layers whose weights are shared out over GPUs and gathered when they are computed: PyTorch's FSDP2.

Each decoder layer is one group, so are embeddings and head where they are two weights. All else is another, which stays
gathered from the forward pass to the end of the backward pass.

4-bit weights are gathered as they are packed, and never cast: a policy of mixed precision would take their bytes for
numbers, and change those that are none. What they were quantised by stays with the layer, whole, on each GPU: it takes
a thirty-second of them. Source: bitsandbytes issue 1945, accelerate issue 3983.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.fsdp._fully_shard._fsdp_collectives import DefaultAllGather, DefaultReduceScatter
from torch.distributed.fsdp._fully_shard._fsdp_common import TrainingState
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from memory_harness.harness.devices.parallel import Group, local_part


def shard(module: torch.nn.Module, mesh: Any, group: Group) -> None:
    """Share out the weights of a module, but for those that modules in it have shared out already."""
    fully_shard(module, mesh=mesh)
    assert isinstance(module, FSDPModule)
    module.set_gradient_divide_factor(1.0)  # losses are parts of the step's already: gradients are added up
    if group.is_joined:
        module.set_force_sum_reduction_for_comms(True)
        all_gather: Any = _Agreeing(DefaultAllGather(), group.check_others)
        reduce_scatter: Any = _Agreeing(DefaultReduceScatter(), group.check_others)
        module.set_custom_all_gather(all_gather)
        module.set_custom_reduce_scatter(reduce_scatter)


class _Agreeing:
    """Something that all GPUs take part in, which none begins while another is out of memory.

    Args:
        action: FSDP2's own.
        check_others: raises where another GPU is; so all leave the pass at the same point, and can do it again.
    """

    def __init__(self, action: Any, check_others: Callable[[], None]) -> None:
        self._action = action
        self._check_others = check_others
        self.allocate = action.allocate

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._check_others()
        return self._action(*args, **kwargs)


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


def is_sharded(tensor: torch.Tensor) -> bool:
    """Return whether a tensor lies on several GPUs, a part on each."""
    return isinstance(tensor, DTensor)


def without_shards(tensors: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """Return the tensors that this GPU has whole."""
    return [tensor for tensor in tensors if not is_sharded(tensor)]


def whole_on_host(tree: Any, group: Group) -> Any:
    """Return the tree with its tensors whole and in host memory; on all GPUs but the first, with its shards alone.

    The device allocates nothing. All GPUs have to call it where there are shards.
    """
    leaves, structure = tree_flatten(tree)
    shards = [local_part(leaf).detach().to("cpu", copy=True) for leaf in leaves if is_sharded(leaf)]
    parts = group.gather_by_first(shards) if shards else []
    whole = iter([torch.cat(of_all) for of_all in zip(*parts, strict=True)] or shards)
    found = []
    for leaf in leaves:
        if is_sharded(leaf):
            found.append(next(whole)[: leaf.size(0)])
        else:
            found.append(leaf.detach().cpu() if isinstance(leaf, torch.Tensor) else leaf)
    return tree_unflatten(found, structure)


def give(tensor: torch.Tensor, whole: torch.Tensor) -> None:
    """Give a tensor the values of a whole one; a sharded one takes its part."""
    local_part(tensor).copy_(part_of(tensor, whole))


def part_of(tensor: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """Return of a whole tensor what this GPU holds of one that is sharded like it; all of it where it is not.

    Source: torch/distributed/fsdp/_fully_shard/_fsdp_common.py, `_chunk_with_empty`.
    """
    if not isinstance(tensor, DTensor):
        return whole
    mesh = tensor.device_mesh
    chunks, rank = whole.chunk(mesh.size()), mesh.get_local_rank()
    return chunks[rank] if rank < len(chunks) else whole[:0]


def sharded_like(tensor: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """Return a whole tensor sharded as another one is; itself where that has other dimensions, or is whole too."""
    if not isinstance(tensor, DTensor) or tensor.shape != whole.shape:
        return whole
    local = part_of(tensor, whole).to(tensor.device, copy=True)
    return DTensor.from_local(
        local, tensor.device_mesh, tensor.placements, run_check=False, shape=whole.shape, stride=whole.stride()
    )


def sharded_tensors(model: Any) -> Iterator[tuple[tuple[str, ...], torch.Tensor]]:
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


def forget_pass(model: Any) -> None:
    """Have FSDP2 forget a forward or backward pass that an error has ended; the model can be run again then.

    Gradients of gathered weights are dropped too: FSDP2 would add the next pass's to them.
    """
    if hasattr(model, "reset_iter_state"):
        model.reset_iter_state()
    else:
        _reset_before_torch_2_13(model)
    for shards in _groups(model):
        for weight in shards.fsdp_params:
            weight.unsharded_accumulated_grad = None
            if hasattr(weight, "_unsharded_param"):
                weight._unsharded_param.grad = None


def _reset_before_torch_2_13(model: Any) -> None:
    """Do what `FSDPModule.reset_iter_state` does, of which versions before 2.13 have the parts.

    Source: torch 2.13, torch/distributed/fsdp/_fully_shard/_fsdp_state.py, `_reset_iter_state`.
    """
    root = model._get_fsdp_state()
    if root._is_root is None:  # no pass has begun yet
        return
    root._device_handle.synchronize()  # in place of waiting for each event
    root._comm_ctx.all_gather_state = root._comm_ctx.reduce_scatter_state = None
    root._comm_ctx.post_forward_order.clear()
    for state in root._state_ctx.all_states:
        state._modules_to_run_forward.clear()
        state._training_state = TrainingState.IDLE
    for shards in _groups(model):
        shards._all_gather_result = shards._post_reduce_event = shards._all_reduce_state = None
        shards._reshard_after_forward_event = shards._partial_reduce_output = None
        shards._post_forward_indices.clear()
        shards._training_state = TrainingState.IDLE
        shards._to_sharded()
    root._state_ctx.iter_forward_root = None
    root._state_ctx.post_backward_final_callback_queued = False


def _groups(model: torch.nn.Module) -> Iterator[Any]:
    for module in model.modules():
        if isinstance(module, FSDPModule):
            yield from _groups_of(module._get_fsdp_state())


def _groups_of(state: Any) -> list[Any]:
    """Return the groups of weights that a module gathers together; before PyTorch 2.13 it has one, or none."""
    if hasattr(state, "_fsdp_param_groups"):
        return list(state._fsdp_param_groups)
    return [] if state._fsdp_param_group is None else [state._fsdp_param_group]
