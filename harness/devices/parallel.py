"""The GPUs that train together, each with a process of its own, which torchrun or another launcher has started.

What the processes tell each other goes through gloo and the host's memory; gradients through NCCL where there are GPUs.
All have to talk at the same points of a run; see `harness.train.recovery.run_collectively`. That is why gradients are
added up once every GPU has done its backward passes: DistributedDataParallel begins within them, so that a GPU without
room for its own would leave the others waiting, and no step could be undone. Nothing is copied into buckets either: a
GPU takes what it would take alone, and what NCCL takes beside PyTorch's allocator, which the driver's count shows.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain, groupby
from operator import itemgetter
from typing import Any, TypeVar

import torch
from torch import distributed
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from memory_harness.configs.launch import Launched
from memory_harness.harness.log.errors import PeerLost, PeerOutOfMemory

Item = TypeVar("Item")

LONGEST_SILENCE = timedelta(minutes=30)
"""for which a process waits for another, which may be probing or write a checkpoint, before it counts as lost"""

FIRST_WORDS = 120
"""characters of what a library says of a process that is gone; more is its source lines and advice"""


@dataclass(frozen=True)
class Group:
    """The GPUs of a run, as one of them sees them."""

    rank: int = 0
    """which of them this is; the first writes log, checkpoints and artefacts"""
    size: int = 1
    local_rank: int = 0
    """which GPU of its host this is"""
    is_joined: bool = False
    """whether the others are there; False where there are none, and in a probe, which runs one GPU's share"""
    shares_layers: bool = False
    """whether a layer is gathered from all GPUs when it is computed: then all have to compute as often"""
    on_host: Callable[[], AbstractContextManager[Any]] = nullcontext
    """within, what the processes tell each other does not count as device memory"""

    def shard(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return those of the items that are this GPU's."""
        return items[self.rank :: self.size]

    def num_rounds(self, num_items: int) -> int:
        """Return how many items the GPU has that has most of them."""
        return -(-num_items // self.size)

    def shard_by_weight(self, items: Sequence[Item], weight: Callable[[Item], int]) -> list[tuple[int, Item] | None]:
        """Return this GPU's items with their positions, the heaviest first; None where only others have one more.

        Where layers are shared, every GPU has all items: a part of a batch, or a token, more on one would be one pass
        that the others do not make.
        """
        numbered = list(enumerate(items))
        if self.shares_layers:
            return list(numbered)
        if self.size > 1:
            numbered.sort(key=lambda pair: weight(pair[1]), reverse=True)
        shard = self.shard(numbered)
        return [*shard, *[None] * (self.num_rounds(len(items)) - len(shard))]

    def gather_in_order(self, numbered: Sequence[tuple[int, Item]]) -> list[Item]:
        """Return what all GPUs have made of their items, in the order of the items."""
        parts = [numbered] if self.shares_layers else self.gather(numbered)
        pairs = sorted(chain.from_iterable(parts), key=itemgetter(0))
        return [item for _, item in pairs]

    def check_others(self) -> None:
        """Make sure that no other GPU is out of memory, before something that all of them have to take part in.

        Raises:
            PeerOutOfMemory: one is.
        """
        if self.any(False):
            raise PeerOutOfMemory

    def gather_by_first(self, value: Item) -> list[Item]:
        """Return the value of each GPU on the first; nothing on the others, which it stands for where they are not."""
        if not self.is_joined:
            return [value] * self.size
        values: list[Any] | None = None if self.rank else [None] * self.size
        with self.on_host(), _peer_errors():
            distributed.gather_object(value, values)
        return values or []

    def take_from_first(self, tensor: torch.Tensor) -> None:
        """Give a tensor the values that it has on the first GPU."""
        if self.is_joined:
            with self.on_host(), _peer_errors():
                distributed.broadcast(tensor, src=0)

    def any(self, here: bool) -> bool:
        """Return whether it is so on any of the GPUs."""
        if not self.is_joined:
            return here
        with self.on_host():
            there = torch.tensor(int(here))
            with _peer_errors():
                distributed.all_reduce(there, distributed.ReduceOp.MAX)
            return bool(there)

    def gather(self, value: Item) -> list[Item]:
        """Return the value of each GPU."""
        if not self.is_joined:
            return [value]
        with self.on_host(), _peer_errors():
            values: list[Any] = [None] * self.size
            distributed.all_gather_object(values, value)
            return values

    def all_reduce(self, tensors: Iterable[torch.Tensor]) -> None:
        """Give tensors the sum over all GPUs, in place and in one go; nothing is allocated on the device."""
        if not self.is_joined:
            return
        world = distributed.group.WORLD
        assert world is not None
        with self.on_host(), torch.no_grad(), _peer_errors():
            for _, alike in groupby(sorted(tensors, key=_dtype_name), key=_dtype_name):
                world.allreduce_coalesced(list(alike)).wait()


def _dtype_name(tensor: torch.Tensor) -> str:
    return str(tensor.dtype)


SINGLE_GPU = Group()


def local_part(tensor: torch.Tensor) -> torch.Tensor:
    """Return what this GPU holds of a tensor that may lie on several."""
    return getattr(tensor, "_local_tensor", tensor)


@contextmanager
def _peer_errors() -> Iterator[None]:
    """Tell a process that does not answer from other errors. Raises PeerLost."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition("\n")[0][:FIRST_WORDS]
        raise PeerLost(f"another process of this run is gone ({reason})") from None


def mesh_of(group: Group, device_type: str) -> DeviceMesh:
    """Return the GPUs as those that share layers out; where the others are not there, nothing comes from them."""
    if group.is_joined:
        return init_device_mesh(device_type, (group.size,))
    from memory_harness.harness.simulate.fsdp import mesh_of_absent

    return mesh_of_absent(group.size, device_type=device_type)


def join(place: Launched, meeting: str = "env://") -> Group:
    """Wait for the other processes of the run, and return the group.

    Args:
        place: of this process among them.
        meeting: how they find each other, as `torch.distributed.init_process_group` takes it.

    Raises:
        PeerLost: some do not come.
    """
    if sys.platform == "linux" and place.local_size == place.size:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # a host's own name need not resolve, as in some containers
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with _peer_errors():
        distributed.init_process_group(
            backend, init_method=meeting, rank=place.rank, world_size=place.size, timeout=LONGEST_SILENCE
        )
    return Group(place.rank, place.size, place.local_rank, is_joined=True)
