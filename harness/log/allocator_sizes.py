"""The sizes in which the CUDA caching allocator hands out and reserves memory; what a log says is read with them."""

from __future__ import annotations

# Source: c10/core/AllocatorConfig.h of torch 2.13: kMinBlockSize, kSmallSize, kSmallBuffer, kMinLargeAlloc,
# large_segment_size_ (kLargeBuffer in earlier releases) and kRoundLarge.
MIN_BLOCK_BYTES = 512
SMALL_MAX_BYTES = 2**20
SMALL_SEGMENT_BYTES = 2 * 2**20
LARGE_SEGMENT_MAX_BYTES = 10 * 2**20
LARGE_SEGMENT_BYTES = 20 * 2**20
ROUND_LARGE_BYTES = 2 * 2**20
LEAST_CARD_BYTES = 256 * 2**20  # budgets below it are for small models on a CPU that stands for a card


def block_size(num_bytes: int) -> int:
    """Return the size of the block that an allocation of `num_bytes` takes. Source: round_size."""
    return -(-num_bytes // MIN_BLOCK_BYTES) * MIN_BLOCK_BYTES


def segment_size(block_bytes: int) -> int:
    """Return the size of the segment that is reserved for a block that fits nowhere. Source: get_allocation_size."""
    if block_bytes <= SMALL_MAX_BYTES:
        return SMALL_SEGMENT_BYTES
    if block_bytes < LARGE_SEGMENT_MAX_BYTES:
        return LARGE_SEGMENT_BYTES
    return -(-block_bytes // ROUND_LARGE_BYTES) * ROUND_LARGE_BYTES


def fine_segment_size(block_bytes: int) -> int:
    """Return the same for budgets that no card has: a segment of 20 MiB would be most of them, or more."""
    return SMALL_SEGMENT_BYTES if block_bytes <= SMALL_MAX_BYTES else block_size(block_bytes)
