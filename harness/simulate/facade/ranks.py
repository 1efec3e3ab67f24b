"""One rank of several, as torchrun starts them: the others are not there, and nothing is sent.

PyTorch's own code runs under its fake process group: DistributedDataParallel makes its buckets, FSDP2 its shards and
what it gathers into. What NCCL takes lies beside PyTorch's allocator, and is counted by `configs.cards`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import distributed
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.testing._internal.distributed.fake_pg import FakeStore

from memory_harness.harness.simulate.facade.dispatch import FacadeTracer
from memory_harness.harness.simulate.facade.values import users_place
from memory_harness.harness.simulate.fsdp import sharding_without_peers
from memory_harness.harness.simulate.results import tensors_among
from memory_harness.harness.simulate.tracer import Lowering

Function = Callable[..., Any]

CARDS_SEEN = "CUDA_VISIBLE_DEVICES"
OF_OTHERS = "what other ranks send, taken to be what this one has"


def variables_of_rank(size: int, rank: int) -> dict[str, str]:
    """Return what torchrun puts into the environment of one of that many processes on one host."""
    return {
        **dict.fromkeys(("RANK", "LOCAL_RANK", "ROLE_RANK"), str(rank)),
        "GROUP_RANK": "0",
        **dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE", "ROLE_WORLD_SIZE"), str(size)),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29500",
        "TORCHELASTIC_RUN_ID": "dry-run",
    }


@contextmanager
def as_rank_of(size: int, rank: int, tracer: FacadeTracer) -> Iterator[None]:
    """Within, this process is one of as many as a launcher has started, one for each card."""
    with ExitStack() as stack:
        stack.enter_context(patch.dict(os.environ, variables_of_rank(size, rank)))
        for owner, name, function in _replacements(size, rank, tracer):
            stack.enter_context(patch.object(owner, name, function))
        stack.enter_context(sharding_without_peers(tracer, lambda: torch.device("cuda", tracer.present_card)))
        stack.callback(_leave, tracer, os.environ.get(CARDS_SEEN))
        yield


def _leave(tracer: FacadeTracer, cards_seen: str | None) -> None:
    tracer.chose_cards = os.environ.get(CARDS_SEEN) != cards_seen
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _replacements(size: int, rank: int, tracer: FacadeTracer) -> list[tuple[Any, str, Any]]:
    join = _join(size, rank, tracer, distributed.init_process_group)
    ddp, mesh = DistributedDataParallel, distributed.device_mesh.DeviceMesh
    from transformers import modeling_utils

    return [
        (distributed, "init_process_group", join),
        (distributed.distributed_c10d, "init_process_group", join),
        (distributed.device_mesh, "init_process_group", join),
        (mesh, "_setup_world_group_and_device", _to_own_card(rank, tracer, mesh._setup_world_group_and_device)),
        (distributed, "is_nccl_available", lambda: True),
        (distributed, "get_backend", lambda group=None: "nccl"),
        # it compares what all have sent, and frees at once what it allocates for that
        (distributed, "_verify_params_across_processes", lambda *_: None),
        (torch.multiprocessing, "spawn", _one_of_spawned(rank)),
        # it measures time, and warns that there is none
        (distributed.Logger, "set_runtime_stats_and_log", lambda _: None),
        (ddp, "__init__", _with_own_buckets(tracer, ddp.__init__)),
        (ddp, "_pre_forward", _in_reducer(tracer, ddp._pre_forward)),
        (ddp, "register_comm_hook", _other_way_to_send(tracer)),
        (ddp, "_register_builtin_comm_hook", _other_way_to_send(tracer)),
        (modeling_utils, "_get_device_map", _over_all_cards(tracer, modeling_utils._get_device_map)),
        (
            FullyShardedDataParallel,
            "__init__",
            _refused(tracer, "FullyShardedDataParallel, but its successor fully_shard"),
        ),
    ]


def _join(size: int, rank: int, tracer: FacadeTracer, original: Function) -> Function:
    @functools.wraps(original)
    def init_process_group(backend: str | None = None, *_: Any, **__: Any) -> None:
        tracer.has_joined = True
        tracer.joins_by_nccl = "nccl" in (backend or "nccl")
        original("fake", store=FakeStore(), rank=rank, world_size=size)

    return init_process_group


def _to_own_card(rank: int, tracer: FacadeTracer, original: Function) -> Function:
    """Let a mesh that is made before CUDA is used choose the card by LOCAL_RANK, as it does where there is one.

    Source: torch/distributed/device_mesh.py, `_setup_world_group_and_device`.
    """

    @functools.wraps(original)
    def set_up(*args: Any, **kwargs: Any) -> Any:
        group = original(*args, **kwargs)
        if not tracer.has_allocated and tracer.num_cards > rank:
            tracer.present_card = rank
        return group

    return set_up


def _one_of_spawned(rank: int) -> Function:
    """Return what runs here what that one of the processes would run."""

    def spawn(function: Function, args: Any = (), *_: Any, **__: Any) -> None:
        function(rank, *args)

    return spawn


def _with_own_buckets(tracer: FacadeTracer, original: Function) -> Function:
    """Count the buckets as they are made, and let what is sent of them come back as it is."""

    @functools.wraps(original)
    def init(self: Any, /, *args: Any, **kwargs: Any) -> None:
        with tracer.in_reducer():
            original(self, *args, **kwargs)
        distributed._register_comm_hook(self.reducer, None, _sent)

    return init


def _sent(_: Any, bucket: Any) -> Any:
    """Return the bucket as it is; PyTorch's fake group would return none."""
    future: Any = torch.futures.Future()
    future.set_result(bucket.buffer())
    return future


def _in_reducer(tracer: FacadeTracer, original: Function) -> Function:
    """Count the buckets that are made anew in the order in which gradients have come."""

    @functools.wraps(original)
    def pre_forward(*args: Any, **kwargs: Any) -> Any:
        with tracer.in_reducer():
            return original(*args, **kwargs)

    return pre_forward


def _other_way_to_send(tracer: FacadeTracer) -> Function:
    def register(*_: Any, **__: Any) -> None:
        tracer.stand_ins.add("a hook that sends gradients, whose own copies of a bucket are not counted", users_place)

    return register


def _over_all_cards(tracer: FacadeTracer, original: Function) -> Function:
    """Let a process that lays a model over all cards be the only one, which torchrun would not have started."""

    @functools.wraps(original)
    def get_device_map(model: Any, device_map: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(device_map, str):
            raise tracer.all_cards()
        return original(model, device_map, *args, **kwargs)

    return get_device_map


@contextmanager
def copies_are_refused(tracer: FacadeTracer) -> Iterator[None]:
    """Within, one process does not copy a model onto several cards: threads would run the copies."""
    refusal = _refused(tracer, "torch.nn.DataParallel: one process on several GPUs")
    with patch.object(DataParallel, "__init__", refusal):
        yield


def _refused(tracer: FacadeTracer, what: str) -> Function:
    def refuse(*_: Any, **__: Any) -> None:
        raise tracer.refusal(f"a dry run does not follow {what}")

    return refuse


def collectives() -> dict[Any, Lowering]:
    """Return what stands in for the operators by which ranks talk: each sends what this one has, and allocates nothing.

    Source: torch/csrc/distributed/c10d/FakeProcessGroup.hpp.
    """
    names = [name.split("::")[1] for name in torch._C._dispatch_get_all_op_names() if name.startswith("c10d::")]
    return {getattr(torch.ops.c10d, name).default: _as_from_this_one for name in names if "." not in name}


def _as_from_this_one(tracer: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    out = func(*args, **kwargs)
    tracer.stand_ins.add(OF_OTHERS, users_place)
    received, sent = tensors_among(args[:1]), tensors_among(args[1:2])
    if sent:  # else each tensor is sent and received in one, and stays as it is
        tracer.follow_received(received, sent)
    return out
