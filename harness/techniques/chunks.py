"""Cutting a batch's tokens into chunks, of which one at a time is computed.

The number of chunks depends on the largest batch alone: a short batch has smaller chunks, not fewer, and so makes the
same sequence of allocations as a long one.
"""

from __future__ import annotations

from memory_harness.configs.schema import RunConfig


def num_chunks(config: RunConfig, batch_size: int, at_once: int) -> int:
    """Return into how many chunks every batch is cut: a power of two, so that padded lengths divide evenly.

    Args:
        config: says how large a batch may get.
        batch_size: sequences in a full batch.
        at_once: most tokens in one chunk of the largest batch.
    """
    largest = config.data.max_batch_tokens or batch_size * config.data.max_length
    needed = -(-largest // at_once)
    return 1 << (needed - 1).bit_length()


def remainder(tokens: int, chunks: int) -> int:
    """Return what decides how chunks differ in size: where it agrees, sizes are linear in the tokens.

    Negative where there are fewer tokens than chunks.
    """
    if tokens < chunks:
        return -tokens
    return tokens % chunks


def row_slices(rows: int, chunks: int) -> list[slice]:
    """Cut into `chunks` parts whose sizes differ by one at most, fewer where there are fewer rows."""
    chunks = min(rows, chunks)
    return [slice(rows * i // chunks, rows * (i + 1) // chunks) for i in range(chunks)]
