"""The GPUs of one host that train together: each has the whole model and a process of its own.

The processes talk through gloo and the host's memory: NCCL's buffers would lie on each GPU, outside PyTorch's allocator
and so outside every budget, for the sake of adapter gradients of some MiB a step. A GPU takes what it would take alone.
All processes have to talk at the same points of a run; see `harness.train.recovery.run_collectively`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import distributed

from memory_harness.harness.log.errors import PeerLost

Item = TypeVar("Item")


@dataclass(frozen=True)
class Group:
    """The GPUs of a run, as one of them sees them."""

    rank: int = 0
    """which of them this is; the first writes log, checkpoints and artefacts"""
    size: int = 1
    is_joined: bool = False
    """whether the others are there; False where there are none, and in a probe, which runs one GPU's share"""
    on_host: Callable[[], AbstractContextManager[Any]] = nullcontext
    """within, what the processes tell each other does not count as device memory"""

    def shard(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return those of the items that are this GPU's."""
        return items[self.rank :: self.size]

    def shard_by_weight(self, items: Sequence[Item], weight: Callable[[Item], int]) -> list[tuple[int, Item] | None]:
        """Return this GPU's items with their positions, the heaviest first; None where only others have one more."""
        numbered = list(enumerate(items))
        if self.size > 1:
            numbered.sort(key=lambda pair: weight(pair[1]), reverse=True)
        shard, rounds = self.shard(numbered), -(-len(items) // self.size)
        return [*shard, *[None] * (rounds - len(shard))]

    def gather_in_order(self, numbered: Sequence[tuple[int, Item]]) -> list[Item]:
        """Return what all GPUs have made of their items, in the order of the items."""
        pairs = sorted(chain.from_iterable(self.gather(numbered)), key=itemgetter(0))
        return [item for _, item in pairs]

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
        """Give float32 tensors the sum over all GPUs, through host memory; nothing is allocated on the device."""
        tensors = list(tensors)
        if not self.is_joined or not tensors:
            return
        with self.on_host(), torch.no_grad():
            total = torch.cat([tensor.to("cpu").flatten() for tensor in tensors])
            with _peer_errors():
                distributed.all_reduce(total)
            parts = total.split(list(map(torch.numel, tensors)))
            for tensor, part in zip(tensors, parts, strict=True):
                tensor.copy_(part.view(tensor.shape))


SINGLE_GPU = Group()


@contextmanager
def _peer_errors() -> Iterator[None]:
    """Tell a process that does not answer from other errors. Raises PeerLost."""
    try:
        yield
    except RuntimeError as error:
        raise PeerLost(f"another process of this run is gone: {error}") from None


def join(rank: int, size: int, meeting: Path) -> Group:
    """Wait for the other processes of the run, and return the group.

    Args:
        rank: of this process.
        size: number of processes.
        meeting: file by which they find each other; none may be there before.
    """
    if sys.platform == "linux":  # a host's own name need not resolve, as in some containers
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    store = distributed.FileStore(str(meeting), size)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=size)
    return Group(rank, size, is_joined=True)
