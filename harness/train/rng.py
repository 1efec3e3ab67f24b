"""The random states that decide what a run computes: Python's, NumPy's, PyTorch's on the CPU and on every GPU."""

import random
from typing import Any

import numpy as np
import torch


def seed_all(seed: int) -> None:
    """Start every generator from one seed."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)  # of the GPUs too


def random_states() -> dict[str, Any]:
    """Return the states of all generators, as tensors and plain values that `torch.load(weights_only=True)` reads."""
    version, words, cached = random.getstate()
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    return {
        "python": (version, list(words), cached),
        "numpy": (str(name), np.asarray(keys).tolist(), int(position), int(has_gauss), float(gauss)),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """Put all generators back; those of GPUs that are not here are left out."""
    version, words, cached = states["python"]
    random.setstate((version, tuple(words), cached))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available():
        for index, state in enumerate(states["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(state, index)
