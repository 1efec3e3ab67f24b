"""A model of PyTorch's CUDA caching allocator: what a sequence of mallocs and frees allocates, reserves and fragments.

It follows class DeviceCachingAllocator of c10/cuda/CUDACachingAllocator.cpp, torch 2.11-2.13, with default settings,
optionally with expandable segments; each "Source:" below names functions of that file. Of private pools there is one,
that of CUDA graphs. Not modelled, as they are off unless asked for: record_stream, max_split_size,
garbage_collection_threshold, roundup_power2_divisions.

Two things are chosen here, because the source leaves them to the driver:
- A new segment lies above all others. Addresses only break ties between free blocks of one size; with this choice the
  order of the segments, rather than their addresses, decides all that follows.
- The budget limits what is reserved. Without expandable segments it does not matter whether that limit is a card's free
  memory or `set_per_process_memory_fraction`. With them, torch tests the fraction against the size that a segment
  without expansion would have, and then maps whole pages: under a fraction of a larger card it may reserve up to one
  page (20 MiB) more than is allowed. Here mapping stops at the budget, as it does on a card of that size.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from memory_harness.harness.log.allocator_sizes import LARGE_SEGMENT_BYTES, SMALL_MAX_BYTES, segment_size
from memory_harness.harness.simulate.blocks import ADDRESS_BITS, FREE, UNMAPPED, BlockNode, BlockPool

GRAPH_POOL = -1
"""in place of a stream: the private pool of CUDA graphs, whose segments stay while a graph may still be replayed"""
GRAPH_STREAM = 1
"""the stream that is captured, which has blocks of its own outside of that pool"""

_UNBOUNDED_BYTES = 2**40  # stands for the card's memory when there is no budget: only sizes the virtual address range

# What a saved state holds beside the blocks.
_COUNTERS = (
    "allocated_bytes",
    "peak_allocated_bytes",
    "reserved_bytes",
    "peak_reserved_bytes",
    "requested_bytes",
    "num_alloc_retries",
    "num_ooms",
    "_whole_free_bytes",
    "_next_handle",
    "_next_address",
)


class AllocatorOutOfMemory(Exception):
    """A request that does not fit the budget, even after all wholly free segments were given back.

    `requested_bytes` is what was asked for. torch's own message gives the size that `segment_size` rounds it to.
    """

    def __init__(
        self, requested_bytes: int, allocated_bytes: int, reserved_bytes: int, largest_free_block_bytes: int
    ) -> None:
        self.requested_bytes = requested_bytes
        self.allocated_bytes = allocated_bytes
        self.reserved_bytes = reserved_bytes
        self.largest_free_block_bytes = largest_free_block_bytes
        super().__init__(
            f"{requested_bytes} bytes requested, {allocated_bytes} allocated, {reserved_bytes} reserved, "
            f"largest free block {largest_free_block_bytes}"
        )


@dataclass(frozen=True, slots=True)
class Block:
    """One block of a segment; `offset_bytes` counts from the segment's address, `handle` is None for a free block."""

    offset_bytes: int
    size_bytes: int
    requested_bytes: int
    handle: int | None

    @property
    def state(self) -> Literal["active_allocated", "inactive"]:
        """The block's state in the words of `torch.cuda.memory_snapshot()`."""
        return "inactive" if self.handle is None else "active_allocated"


@dataclass(frozen=True, slots=True)
class Segment:
    """Reserved memory at consecutive addresses: one cudaMalloc, or a run of mapped pages of an expandable segment."""

    address: int
    size_bytes: int
    pool: Literal["small", "large"]
    stream: int
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class AllocatorState:
    """All that `CachingAllocator.load` needs; meant to be kept, not read."""

    segments: tuple[tuple[int, int, bool, tuple[int, ...]], ...]  # address, stream, is_small, 3 integers per block
    counters: tuple[int, ...]


class CachingAllocator:
    """The allocator of one device.

    Args:
        budget_bytes: most that may be reserved; None for no limit.
        expandable_segments: as with `PYTORCH_ALLOC_CONF=expandable_segments:True`.

    Attributes: `allocated_bytes` counts whole blocks, so also a tail that was too small to split off; `requested_bytes`
    counts what was asked for. `num_alloc_retries` and `num_ooms` count as in `torch.cuda.memory_stats()`.
    """

    def __init__(self, budget_bytes: int | None = None, *, expandable_segments: bool = False) -> None:
        if budget_bytes is not None and budget_bytes <= 0:
            raise ValueError(f"budget_bytes must be positive or None, not {budget_bytes}")
        self.budget_bytes = budget_bytes
        self.expandable_segments = expandable_segments
        self.segment_size = segment_size
        self.allocated_bytes = self.peak_allocated_bytes = 0
        self.reserved_bytes = self.peak_reserved_bytes = 0
        self.requested_bytes = 0
        self.num_alloc_retries = self.num_ooms = 0
        self._whole_free_bytes = 0  # in segments that are one free block; always 0 with expandable segments
        self._next_handle = 1
        self._next_address = LARGE_SEGMENT_BYTES
        self._live: dict[int, BlockNode] = {}  # oldest first
        self._small: dict[int, BlockPool] = {}  # by stream
        self._large: dict[int, BlockPool] = {}

    @property
    def active_bytes(self) -> int:
        """Bytes of blocks in use; equal to `allocated_bytes`, as no block waits for another stream here."""
        return self.allocated_bytes

    @property
    def inactive_split_bytes(self) -> int:
        """Free bytes in segments that are partly in use; 0 with expandable segments. Source: free_block."""
        if self.expandable_segments:
            return 0
        return self.reserved_bytes - self.allocated_bytes - self._whole_free_bytes

    def malloc(self, num_bytes: int, stream: int = 0) -> int:
        """Allocate and return a handle for `free`; an empty request allocates nothing and returns 0.

        Raises:
            AllocatorOutOfMemory: no room, although wholly free segments were released. The allocator stays usable.
            ValueError: negative size.

        Source: malloc, get_free_block, should_split, alloc_found_block; allocate (empty requests).
        """
        if num_bytes <= 0:
            if num_bytes == 0:
                return 0
            raise ValueError(f"cannot allocate {num_bytes} bytes")
        size = (num_bytes + 511) & -512  # round_size, spelled out: this is the hot path
        pools = self._small if size <= SMALL_MAX_BYTES else self._large
        pool = pools.get(stream) or self._add_pool(size <= SMALL_MAX_BYTES, stream)
        keys = pool.keys
        index = bisect_left(keys, size << ADDRESS_BITS)
        if index == len(keys):
            block = self._grow(pool, size, num_bytes)
        else:
            if self.expandable_segments:
                index = pool.best_expandable(index)
            del keys[index]
            block = pool.blocks.pop(index)
            if block.next is None and block.prev is None:
                self._whole_free_bytes -= block.size
        if block.size - size >= pool.min_remainder:
            pool.add(block.split(size, FREE))
        else:
            size = block.size
        handle = self._next_handle
        self._next_handle = handle + 1
        block.handle = handle
        block.requested = num_bytes
        self._live[handle] = block
        self.requested_bytes += num_bytes
        self.allocated_bytes = allocated = self.allocated_bytes + size
        if allocated > self.peak_allocated_bytes:
            self.peak_allocated_bytes = allocated
        return handle

    def free(self, handle: int) -> None:
        """Give a block back to its pool, merged with its free neighbours; handle 0 is ignored.

        Raises:
            ValueError: not a live handle.

        Source: free, free_block, try_merge_blocks.
        """
        block = self._live.pop(handle, None)
        if block is None:
            if handle == 0:
                return
            raise ValueError(f"handle {handle} is not allocated")
        self.allocated_bytes -= block.size
        self.requested_bytes -= block.requested
        block.requested = 0
        block = block.pool.add_merged(block, FREE)
        if block.next is None and block.prev is None:
            self._whole_free_bytes += block.size

    def empty_cache(self, *, of_graphs: bool = False) -> None:
        """Release the segments (or pages, if segments expand) that are wholly free. Source: release_cached_blocks.

        Args:
            of_graphs: those of the graphs' pool, once no graph is left, instead of all others.
        """
        for pools in (self._large, self._small):
            for pool in pools.values():
                if (pool.stream == GRAPH_POOL) != of_graphs:
                    continue
                if self.expandable_segments:
                    self._unmap_free_pages(pool)
                else:
                    self._release_free_segments(pool)

    def reset_peaks(self) -> None:
        """Restart both peaks at the current values. Source: resetPeakStats."""
        self.peak_allocated_bytes = self.allocated_bytes
        self.peak_reserved_bytes = self.reserved_bytes

    def largest_free_block_bytes(self) -> int:
        """Return the size of the largest cached block in any pool, 0 without one. Source: cacheInfo."""
        largest = 0
        for pool in self._pools():
            if pool.blocks:
                largest = max(largest, pool.blocks[-1].size)
        return largest

    def block_of(self, handle: int) -> tuple[int, int]:
        """Return address and requested bytes of a live handle; 0 and 0 of handle 0. Raises KeyError: it is not live."""
        if handle == 0:
            return 0, 0
        block = self._live[handle]
        return block.address, block.requested

    def segments(self) -> list[Segment]:
        """Return all reserved memory in order of address. Source: snapshot."""
        segments: list[Segment] = []
        for pool in self._pools():
            for head in pool.heads:
                segments += map(_segment, _mapped_runs(head))
        return sorted(segments, key=lambda segment: segment.address)

    def fingerprint(self) -> Hashable:
        """Return a value that is equal for two states when equal future requests have equal effects.

        Frees correspond by age: the n-th oldest live handle of one state to the n-th oldest of the other. Addresses,
        handles, peaks and counters do not matter.
        """
        rank = {handle: n for n, handle in enumerate(self._live, 1)}
        rank[FREE], rank[UNMAPPED] = FREE, UNMAPPED
        numbers = array("q", (self.budget_bytes or 0, self.expandable_segments))
        for pool in sorted(self._pools(), key=lambda pool: (pool.stream, pool.is_small)):
            for head in pool.heads:
                numbers.extend((-2, pool.stream, pool.is_small))
                for block in head.chain():
                    numbers.extend((block.size, block.requested, rank[block.handle]))
        return numbers.tobytes()

    def save(self) -> AllocatorState:
        """Return a copy of everything, handles and peaks included."""
        segments = []
        for pool in self._pools():
            for head in pool.heads:
                numbers: list[int] = []
                for block in head.chain():
                    numbers += (block.size, block.requested, block.handle)
                segments.append((head.address, pool.stream, pool.is_small, tuple(numbers)))
        return AllocatorState(tuple(segments), tuple(getattr(self, name) for name in _COUNTERS))

    def load(self, state: AllocatorState) -> None:
        """Go back to a state that an allocator of the same settings saved."""
        for name, value in zip(_COUNTERS, state.counters, strict=True):
            setattr(self, name, value)
        self._small, self._large = {}, {}
        live: list[BlockNode] = []
        for address, stream, is_small, numbers in state.segments:
            pools = self._small if is_small else self._large
            pool = pools.get(stream) or self._add_pool(is_small, stream)
            pool.restore_segment(address, numbers, live)
        live.sort(key=lambda block: block.handle)
        self._live = {block.handle: block for block in live}
        for pool in self._pools():
            pool.restore_order()

    def _add_pool(self, is_small: bool, stream: int) -> BlockPool:
        pools = self._small if is_small else self._large
        pools[stream] = BlockPool(stream, is_small, self.expandable_segments)
        return pools[stream]

    def _pools(self) -> Iterator[BlockPool]:
        yield from self._small.values()
        yield from self._large.values()

    def _grow(self, pool: BlockPool, size: int, num_bytes: int) -> BlockNode:
        """Reserve more memory for a block of `size`, if need be after releasing the cache. Source: malloc.

        Nothing is released while a private pool is in use: `captures_underway` is not empty then.
        """
        block = self._try_reserve(pool, size)
        if block is None and pool.stream != GRAPH_POOL:
            self.empty_cache()
            self.num_alloc_retries += 1
            block = self._try_reserve(pool, size)
        if block is None:
            self.num_ooms += 1
            raise AllocatorOutOfMemory(
                num_bytes, self.allocated_bytes, self.reserved_bytes, self.largest_free_block_bytes()
            )
        return block

    def _try_reserve(self, pool: BlockPool, size: int) -> BlockNode | None:
        """Return an unlisted free block of at least `size` in new memory. Source: alloc_block."""
        reserve = self.segment_size(size)
        if self._exceeds_budget(reserve):
            return None
        if self.expandable_segments:
            return self._extend(pool, size)
        self._add_reserved(reserve)
        return self._add_segment(pool, reserve, FREE)

    def _exceeds_budget(self, more_bytes: int) -> bool:
        return self.budget_bytes is not None and self.reserved_bytes + more_bytes > self.budget_bytes

    def _add_reserved(self, more_bytes: int) -> None:
        self.reserved_bytes += more_bytes
        self.peak_reserved_bytes = max(self.peak_reserved_bytes, self.reserved_bytes)

    def _add_segment(self, pool: BlockPool, size: int, state: int) -> BlockNode:
        """Open a segment above all others, at an address that is a multiple of either page size."""
        head = BlockNode(self._next_address, size, state, None, None, pool)
        self._next_address += -(-size // LARGE_SEGMENT_BYTES) * LARGE_SEGMENT_BYTES
        pool.heads.append(head)
        return head

    def _release_free_segments(self, pool: BlockPool) -> None:
        """Release the segments that are one free block. Source: release_blocks, release_block."""
        kept = []
        for head in pool.heads:
            if head.handle != FREE or head.next is not None:
                kept.append(head)
                continue
            pool.remove(head)
            self.reserved_bytes -= head.size
            self._whole_free_bytes -= head.size
        pool.heads = kept

    def _extend(self, pool: BlockPool, size: int) -> BlockNode | None:
        """Map pages until a block of `size` is free; pages mapped before a failure stay mapped.

        Source: try_allocate_expandable_block.
        """
        block: BlockNode | None = pool.find_room(size) or self._open_expandable(pool, size)
        if block is not None and block.handle == UNMAPPED:
            block = self._map(pool, block, min(block.size, size))
        while block is not None and block.size < size:
            after = block.next
            assert after is not None, "find_room returned a block without room"
            block = self._map(pool, after, min(after.size, size - block.size))
        if block is not None:
            pool.remove(block)
        return block

    def _open_expandable(self, pool: BlockPool, size: int) -> BlockNode:
        """Reserve addresses for 9/8 of the card's memory, nothing mapped. Source: find_expandable_block."""
        card_bytes = self.budget_bytes or _UNBOUNDED_BYTES
        num_pages = -(-max(card_bytes + card_bytes // 8, size) // pool.page_bytes)
        head = self._add_segment(pool, num_pages * pool.page_bytes, UNMAPPED)
        pool.add(head)
        return head

    def _map(self, pool: BlockPool, block: BlockNode, size: int) -> BlockNode | None:
        """Back the first `size` bytes of an unmapped block with whole pages. Source: map_block."""
        mapped = -(-size // pool.page_bytes) * pool.page_bytes
        if self._exceeds_budget(mapped):
            return None
        pool.remove(block)
        if mapped < block.size:
            pool.add(block.split(mapped, UNMAPPED))
        self._add_reserved(mapped)
        return pool.add_merged(block, FREE)

    def _unmap_free_pages(self, pool: BlockPool) -> None:
        """Unmap the pages that lie wholly within a free block.

        Source: release_blocks, unmap_block, ExpandableSegment::unmap, release_expandable_segment.
        """
        page = pool.page_bytes
        for block in list(pool.blocks):
            stop = block.address + block.size
            first, last = -(-block.address // page) * page, stop // page * page
            if first >= last:
                continue
            pool.remove(block)
            if last < stop:
                pool.add(block.split(last - block.address, FREE))
            if first > block.address:
                pages = block.split(first - block.address, UNMAPPED)
                pool.add(block)
            else:
                pages = block
            pages = pool.add_merged(pages, UNMAPPED)
            self.reserved_bytes -= last - first
            if pages.prev is None and pages.next is None:
                pool.remove(pages)
                pool.heads.remove(pages)


def _segment(run: list[BlockNode]) -> Segment:
    start, pool = run[0].address, run[0].pool
    blocks = [Block(block.address - start, block.size, block.requested, block.handle or None) for block in run]
    end = run[-1].address + run[-1].size
    return Segment(start, end - start, "small" if pool.is_small else "large", pool.stream, tuple(blocks))


def _mapped_runs(head: BlockNode) -> Iterator[list[BlockNode]]:
    """Yield the blocks of a segment, in one list where no unmapped pages lie between them."""
    for is_mapped, run in groupby(head.chain(), key=lambda block: block.handle != UNMAPPED):
        if is_mapped:
            yield list(run)
