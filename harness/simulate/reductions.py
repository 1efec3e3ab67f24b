"""The buffer through which blocks of a CUDA reduction meet, where one block alone would take too long.

Source: aten/src/ATen/native/cuda/Reduce.cuh, `setReduceConfig`, `ReduceConfig::global_memory_size` and
`semaphore_size`. Measured on an H200: 94 371 840 and 23 592 960 bytes for the gradients of the biases of BERT.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from memory_harness.configs.cards import Card

MAX_THREADS = 512
WARP = 32
VECTOR = 4
"""most outputs that a thread sums at once"""
MIN_VALUES, MAX_VALUES = 16, 256
"""values per thread"""
SUM_BYTES = 4
"""sums of 16 and 32 bits are made in float32"""
SEMAPHORE_BYTES = 4


def reduction_buffers(tensor: torch.Tensor, dims: Sequence[int] | None, card: Card) -> tuple[int, ...]:
    """Return the sizes of the buffers for a sum over the leading dimensions of a contiguous tensor; () for others.

    Sums over all or over the last dimensions take buffers of some hundred bytes, which are left out.
    """
    leading = {dim % tensor.dim() for dim in dims} if dims and tensor.dim() else set()
    if not leading or leading != set(range(len(leading))) or len(leading) == tensor.dim():
        return ()
    if not tensor.is_contiguous() or not tensor.is_floating_point() or tensor.element_size() > SUM_BYTES:
        return ()
    num_inputs, num_outputs = math.prod(tensor.shape[: len(leading)]), math.prod(tensor.shape[len(leading) :])
    return _sizes(num_inputs, num_outputs, card)


def _sizes(num_inputs: int, num_outputs: int, card: Card) -> tuple[int, ...]:
    if not num_inputs or not num_outputs:
        return ()
    vector = math.gcd(num_outputs, VECTOR)
    columns, max_threads = num_outputs // vector, MAX_THREADS // vector
    width_limit, height_limit = min(_power_of_2(columns), max_threads), min(_power_of_2(num_inputs), max_threads)
    width = min(width_limit, WARP)
    height = min(height_limit, max_threads // width)
    width = min(width_limit, max_threads // height)
    splits_rows = num_inputs >= min(height * 16, MAX_VALUES)
    values = math.ceil(num_inputs / height) if splits_rows else num_inputs
    grid = math.ceil(columns / (width if splits_rows else width * height))
    target = card.num_sms * (_threads_per_sm(card) // (width * height))
    if not splits_rows or values < MAX_VALUES or grid > target:
        return ()
    blocks = max(min(math.ceil(target / grid), math.ceil(values / MIN_VALUES)), math.ceil(values / MAX_VALUES))
    if blocks <= 1:
        return ()
    return SUM_BYTES * num_outputs * blocks * width * vector, SEMAPHORE_BYTES * grid


def _power_of_2(value: int) -> int:
    """Return the largest power of 2 that is not above a value."""
    return 1 << (value.bit_length() - 1)


def _threads_per_sm(card: Card) -> int:
    """Return how many threads a multiprocessor holds. Source: CUDA C++ programming guide, compute capabilities."""
    if card.capability == (7, 5):
        return 1024
    return 1536 if card.capability in ((8, 6), (8, 7), (8, 9), (12, 0), (12, 1)) else 2048
