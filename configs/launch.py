"""Which of the processes this is that torchrun, accelerate or another launcher has started to train together."""

from __future__ import annotations

import os
from dataclasses import dataclass

from memory_harness.configs.errors import ConfigError

VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
"""Source: torch.distributed.run; with MASTER_ADDR and MASTER_PORT, which PyTorch reads itself"""


@dataclass(frozen=True)
class Launched:
    """A process among those that a launcher has started, one for each GPU."""

    rank: int
    local_rank: int
    """among those of its host"""
    size: int
    local_size: int


def launched() -> Launched | None:
    """Return which of several processes this is; None where a launcher has started no others.

    Raises:
        ConfigError: the launcher's variables are no numbers.
    """
    rank, local_rank, size, local_size = map(os.environ.get, VARIABLES)
    if None in (rank, local_rank, size, os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")):
        return None  # a batch system may set some of them
    try:
        found = Launched(*map(int, (rank or "", local_rank or "", size or "", local_size or size or "")))
    except ValueError:
        given = ", ".join(f"{name}={os.environ.get(name)}" for name in VARIABLES)
        raise ConfigError(f"{given}: no whole numbers, as torchrun sets them; start it with torchrun") from None
    return found if found.size > 1 else None


def leads() -> bool:
    """Return whether this process speaks for all: the first, or the only one."""
    found = launched()
    return found is None or found.rank == 0


def launched_gpus(num_gpus: int | None) -> dict[str, int]:
    """Return the setting that a launcher has made: as many GPUs as it has started processes.

    Args:
        num_gpus: as --num-gpus gives it; None where it was left out.

    Raises:
        ConfigError: another number.
    """
    found = launched()
    if found is None:
        return {}
    if num_gpus not in (None, found.size):
        raise ConfigError(
            f"--num-gpus {num_gpus}: the launcher has started {found.size} processes, one for each GPU (allowed: "
            f"{found.size}); leave it out, or change --nproc-per-node"
        )
    return {"num_gpus": found.size}
