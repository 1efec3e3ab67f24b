"""A model of PyTorch's CUDA caching allocator: what a sequence of mallocs and frees allocates, reserves and fragments.

It follows c10/cuda/CUDACachingAllocator.cpp (class DeviceCachingAllocator) of torch 2.11-2.13 with its default settings,
optionally with expandable segments. Not modelled: record_stream, graph-private pools, max_split_size,
garbage_collection_threshold and roundup_power2_divisions, which are all off by default.

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
from bisect import bisect_left, insort
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Literal

# Source: c10/core/AllocatorConfig.h (kMinBlockSize, kSmallSize, kSmallBuffer, kMinLargeAlloc, kRoundLarge, and
# large_segment_size_, which earlier releases called kLargeBuffer).
MIN_BLOCK_BYTES = 512
SMALL_MAX_BYTES = 2**20
SMALL_SEGMENT_BYTES = 2 * 2**20
LARGE_SEGMENT_MAX_BYTES = 10 * 2**20
LARGE_SEGMENT_BYTES = 20 * 2**20
ROUND_LARGE_BYTES = 2 * 2**20

_UNBOUNDED_BYTES = 2**40  # stands for the card's memory when there is no budget: only sizes the virtual address range
_ADDRESS_BITS = 60  # a free block's key is its size shifted by this, plus its address: plain integers compare fastest
_FREE, _UNMAPPED = 0, -1  # in place of a handle; handles count from 1


class AllocatorOutOfMemory(Exception):
    """A request that does not fit the budget, even after all wholly free segments were given back.

    `requested_bytes` is what was asked for; torch's message names the segment that it tried to reserve, which is larger.
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


class _Block:
    """A block and its neighbours in the segment; a segment's first block stays the same object while it exists."""

    __slots__ = ("address", "size", "requested", "handle", "prev", "next", "pool")

    def __init__(
        self, address: int, size: int, handle: int, prev: _Block | None, next: _Block | None, pool: _Pool
    ) -> None:
        self.address = address
        self.size = size
        self.requested = 0
        self.handle = handle
        self.prev = prev
        self.next = next
        self.pool = pool


class _Pool:
    """The segments of one stream and size class, and their free blocks in order of size, then address."""

    __slots__ = ("stream", "is_small", "page_bytes", "min_remainder", "keys", "blocks", "unmapped", "heads")

    def __init__(self, stream: int, is_small: bool, expandable: bool) -> None:
        self.stream = stream
        self.is_small = is_small
        self.page_bytes = SMALL_SEGMENT_BYTES if is_small else LARGE_SEGMENT_BYTES
        # Source: should_split; the large pool wants a remainder of more than 1 MiB unless segments expand.
        self.min_remainder = MIN_BLOCK_BYTES if is_small or expandable else SMALL_MAX_BYTES + 1
        self.keys: list[int] = []
        self.blocks: list[_Block] = []  # the block of the key at the same position
        self.unmapped: list[_Block] = []  # in order of address
        self.heads: list[_Block] = []  # first block of every segment, in order of address

    def add(self, block: _Block) -> None:
        """List a block under its state, free or unmapped."""
        if block.handle == _FREE:
            key = _key(block)
            index = bisect_left(self.keys, key)
            self.keys.insert(index, key)
            self.blocks.insert(index, block)
        else:
            insort(self.unmapped, block, key=_address)

    def remove(self, block: _Block) -> None:
        if block.handle == _FREE:
            index = bisect_left(self.keys, _key(block))
            del self.keys[index]
            del self.blocks[index]
        else:
            self.unmapped.remove(block)

    def give_back(self, block: _Block, state: int) -> _Block:
        """List a block that became free or unmapped, merged with neighbours of that state. Source: try_merge_blocks."""
        block.handle = state
        before, after = block.prev, block.next
        if before is not None and before.handle == state:
            self.remove(before)
            _absorb(before, block)
            block = before
        if after is not None and after.handle == state:
            self.remove(after)
            _absorb(block, after)
        self.add(block)
        return block

    def best_expandable(self, index: int) -> int:
        """Prefer the block that leaves the least room to grow. Source: get_free_block (expandable_size)."""
        while index + 1 < len(self.blocks) and _room(self.blocks[index + 1]) < _room(self.blocks[index]):
            index += 1
        return index


def _key(block: _Block) -> int:
    return (block.size << _ADDRESS_BITS) + block.address


def _address(block: _Block) -> int:
    return block.address


def _room(block: _Block) -> int:
    after = block.next
    return block.size + (after.size if after is not None and after.handle == _UNMAPPED else 0)


def _absorb(front: _Block, back: _Block) -> None:
    """Let a block swallow the one after it; the caller keeps the pool's lists in order."""
    front.size += back.size
    front.next = back.next
    if back.next is not None:
        back.next.prev = front


def _split(block: _Block, size: int, rest: int) -> _Block:
    """Cut a block to `size` and return the new block that holds the remainder, in state `rest`."""
    after = _Block(block.address + size, block.size - size, rest, block, block.next, block.pool)
    if after.next is not None:
        after.next.prev = after
    block.next = after
    block.size = size
    return after


def _chain(head: _Block) -> Iterator[_Block]:
    block: _Block | None = head
    while block is not None:
        yield block
        block = block.next


def round_size(num_bytes: int) -> int:
    """Return the block size that a request needs. Source: round_size."""
    return max(-(-num_bytes // MIN_BLOCK_BYTES), 1) * MIN_BLOCK_BYTES


def segment_size(block_bytes: int) -> int:
    """Return the size of the segment that is reserved for a block that fits nowhere. Source: get_allocation_size."""
    if block_bytes <= SMALL_MAX_BYTES:
        return SMALL_SEGMENT_BYTES
    if block_bytes < LARGE_SEGMENT_MAX_BYTES:
        return LARGE_SEGMENT_BYTES
    return -(-block_bytes // ROUND_LARGE_BYTES) * ROUND_LARGE_BYTES


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
        self.allocated_bytes = self.peak_allocated_bytes = 0
        self.reserved_bytes = self.peak_reserved_bytes = 0
        self.requested_bytes = 0
        self.num_alloc_retries = self.num_ooms = 0
        self._whole_free_bytes = 0  # in segments that are one free block; always 0 with expandable segments
        self._next_handle = 1
        self._next_address = LARGE_SEGMENT_BYTES
        self._live: dict[int, _Block] = {}  # oldest first
        self._small: dict[int, _Pool] = {}  # by stream
        self._large: dict[int, _Pool] = {}

    @property
    def active_bytes(self) -> int:
        """Bytes of blocks in use; equal to `allocated_bytes`, as no block waits for another stream here."""
        return self.allocated_bytes

    @property
    def inactive_split_bytes(self) -> int:
        """Free bytes in segments that are partly in use; 0 with expandable segments. Source: free_block."""
        return 0 if self.expandable_segments else self.reserved_bytes - self.allocated_bytes - self._whole_free_bytes

    def malloc(self, num_bytes: int, stream: int = 0) -> int:
        """Allocate and return a handle for `free`; an empty request allocates nothing and returns 0.

        Raises:
            AllocatorOutOfMemory: no room. Wholly free segments were released on the way, and the allocator stays usable.
            ValueError: negative size.

        Source: malloc, get_free_block, should_split, alloc_found_block; allocate (empty requests).
        """
        if num_bytes <= 0:
            if num_bytes == 0:
                return 0
            raise ValueError(f"cannot allocate {num_bytes} bytes")
        size = (num_bytes + 511) & -512  # round_size, spelled out: this is the hot path
        pool = (self._small if size <= SMALL_MAX_BYTES else self._large).get(stream) or self._add_pool(
            size <= SMALL_MAX_BYTES, stream
        )
        keys = pool.keys
        index = bisect_left(keys, size << _ADDRESS_BITS)
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
            pool.add(_split(block, size, _FREE))
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
        block = block.pool.give_back(block, _FREE)
        if block.next is None and block.prev is None:
            self._whole_free_bytes += block.size

    def empty_cache(self) -> None:
        """Release every wholly free segment, or every wholly free page. Source: release_cached_blocks, release_blocks."""
        for pools in (self._large, self._small):
            for pool in pools.values():
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
        return max((pool.blocks[-1].size for pool in self._pools() if pool.blocks), default=0)

    def segments(self) -> list[Segment]:
        """Return all reserved memory in order of address. Source: snapshot."""
        runs = [run for pool in self._pools() for head in pool.heads for run in _mapped_runs(head)]
        return sorted(map(_describe, runs), key=lambda segment: segment.address)

    def fingerprint(self) -> Hashable:
        """Return a value that is equal for two states when equal future requests have equal effects.

        Frees correspond by age: the n-th oldest live handle of one state to the n-th oldest of the other. Addresses,
        handles, peaks and counters do not matter.
        """
        rank = {handle: n for n, handle in enumerate(self._live, 1)}
        rank[_FREE], rank[_UNMAPPED] = _FREE, _UNMAPPED
        numbers = array("q", (self.budget_bytes or 0, self.expandable_segments))
        for pool in sorted(self._pools(), key=lambda pool: (pool.stream, pool.is_small)):
            for head in pool.heads:
                numbers.extend((-2, pool.stream, pool.is_small))
                for block in _chain(head):
                    numbers.extend((block.size, block.requested if block.handle > 0 else 0, rank[block.handle]))
        return numbers.tobytes()

    def save(self) -> AllocatorState:
        """Return a copy of everything, handles and peaks included."""
        segments = []
        for pool in self._pools():
            for head in pool.heads:
                numbers: list[int] = []
                for block in _chain(head):
                    numbers += (block.size, block.requested, block.handle)
                segments.append((head.address, pool.stream, pool.is_small, tuple(numbers)))
        return AllocatorState(tuple(segments), tuple(getattr(self, name) for name in _COUNTERS))

    def load(self, state: AllocatorState) -> None:
        """Go back to a state that an allocator of the same settings saved."""
        for name, value in zip(_COUNTERS, state.counters, strict=True):
            setattr(self, name, value)
        self._small, self._large = {}, {}
        live: list[_Block] = []
        for address, stream, is_small, numbers in state.segments:
            pool = (self._small if is_small else self._large).get(stream) or self._add_pool(is_small, stream)
            _restore_segment(pool, address, numbers, live)
        live.sort(key=lambda block: block.handle)
        self._live = {block.handle: block for block in live}
        for pool in self._pools():
            pool.blocks.sort(key=_key)
            pool.keys = [_key(block) for block in pool.blocks]
            pool.unmapped.sort(key=_address)

    def _add_pool(self, is_small: bool, stream: int) -> _Pool:
        pool = _Pool(stream, is_small, self.expandable_segments)
        (self._small if is_small else self._large)[stream] = pool
        return pool

    def _pools(self) -> Iterator[_Pool]:
        yield from self._small.values()
        yield from self._large.values()

    def _grow(self, pool: _Pool, size: int, num_bytes: int) -> _Block:
        """Reserve more memory for a block of `size`, if need be after releasing the cache. Source: malloc."""
        block = self._try_reserve(pool, size)
        if block is None:
            self.empty_cache()
            self.num_alloc_retries += 1
            block = self._try_reserve(pool, size)
        if block is None:
            self.num_ooms += 1
            raise AllocatorOutOfMemory(
                num_bytes, self.allocated_bytes, self.reserved_bytes, self.largest_free_block_bytes()
            )
        return block

    def _try_reserve(self, pool: _Pool, size: int) -> _Block | None:
        """Return an unlisted free block of at least `size` in new memory. Source: alloc_block."""
        reserve = segment_size(size)
        if self._exceeds_budget(reserve):
            return None
        if self.expandable_segments:
            return self._extend(pool, size)
        self._add_reserved(reserve)
        return self._add_segment(pool, reserve, _FREE)

    def _exceeds_budget(self, more_bytes: int) -> bool:
        return self.budget_bytes is not None and self.reserved_bytes + more_bytes > self.budget_bytes

    def _add_reserved(self, more_bytes: int) -> None:
        self.reserved_bytes += more_bytes
        self.peak_reserved_bytes = max(self.peak_reserved_bytes, self.reserved_bytes)

    def _add_segment(self, pool: _Pool, size: int, state: int) -> _Block:
        """Open a segment above all others, at an address that is a multiple of either page size."""
        head = _Block(self._next_address, size, state, None, None, pool)
        self._next_address += -(-size // LARGE_SEGMENT_BYTES) * LARGE_SEGMENT_BYTES
        pool.heads.append(head)
        return head

    def _release_free_segments(self, pool: _Pool) -> None:
        """Source: release_blocks, release_block."""
        released = [head for head in pool.heads if head.handle == _FREE and head.next is None]
        for head in released:
            pool.remove(head)
            pool.heads.remove(head)
            self.reserved_bytes -= head.size
            self._whole_free_bytes -= head.size

    def _extend(self, pool: _Pool, size: int) -> _Block | None:
        """Map pages until a block of `size` is free; pages mapped before a failure stay. Source: try_allocate_expandable_block."""
        block: _Block | None = self._find_room(pool, size)
        if block is not None and block.handle == _UNMAPPED:
            block = self._map(pool, block, min(block.size, size))
        while block is not None and block.size < size:
            after = block.next
            assert after is not None, "_find_room returned a block without room"
            block = self._map(pool, after, min(after.size, size - block.size))
        if block is not None:
            pool.remove(block)
        return block

    def _find_room(self, pool: _Pool, size: int) -> _Block:
        """Return the lowest free or unmapped block that `size` bytes can start at. Source: find_expandable_block."""
        for block in pool.unmapped:
            start = block.prev if block.prev is not None and block.prev.handle == _FREE else block
            room = 0
            for candidate in _chain(start):
                if candidate.handle > 0 or room >= size:
                    break
                room += candidate.size
            if room >= size:
                return start
        card_bytes = self.budget_bytes or _UNBOUNDED_BYTES
        num_pages = -(-max(card_bytes + card_bytes // 8, size) // pool.page_bytes)
        head = self._add_segment(pool, num_pages * pool.page_bytes, _UNMAPPED)
        pool.add(head)
        return head

    def _map(self, pool: _Pool, block: _Block, size: int) -> _Block | None:
        """Back the first `size` bytes of an unmapped block with whole pages. Source: map_block, ExpandableSegment::map."""
        mapped = -(-size // pool.page_bytes) * pool.page_bytes
        if self._exceeds_budget(mapped):
            return None
        pool.remove(block)
        if mapped < block.size:
            pool.add(_split(block, mapped, _UNMAPPED))
        self._add_reserved(mapped)
        return pool.give_back(block, _FREE)

    def _unmap_free_pages(self, pool: _Pool) -> None:
        """Source: release_blocks, unmap_block, ExpandableSegment::unmap, release_expandable_segment."""
        page = pool.page_bytes
        for block in list(pool.blocks):
            stop = block.address + block.size
            first, last = -(-block.address // page) * page, stop // page * page
            if first >= last:
                continue
            pool.remove(block)
            if last < stop:
                pool.add(_split(block, last - block.address, _FREE))
            if first > block.address:
                pages = _split(block, first - block.address, _UNMAPPED)
                pool.add(block)
            else:
                pages = block
            pages = pool.give_back(pages, _UNMAPPED)
            self.reserved_bytes -= last - first
            if pages.prev is None and pages.next is None:
                pool.remove(pages)
                pool.heads.remove(pages)


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


def _describe(run: list[_Block]) -> Segment:
    start, pool = run[0].address, run[0].pool
    return Segment(
        address=start,
        size_bytes=sum(block.size for block in run),
        pool="small" if pool.is_small else "large",
        stream=pool.stream,
        blocks=tuple(
            Block(block.address - start, block.size, block.requested, block.handle)
            if block.handle
            else Block(block.address - start, block.size, 0, None)
            for block in run
        ),
    )


def _mapped_runs(head: _Block) -> list[list[_Block]]:
    runs: list[list[_Block]] = [[]]
    for block in _chain(head):
        if block.handle == _UNMAPPED:
            runs.append([])
        else:
            runs[-1].append(block)
    return [run for run in runs if run]


def _restore_segment(pool: _Pool, address: int, numbers: tuple[int, ...], live: list[_Block]) -> None:
    before: _Block | None = None
    triples = iter(numbers)
    for size, requested, handle in zip(triples, triples, triples, strict=True):
        block = _Block(address, size, handle, before, None, pool)
        block.requested = requested
        if before is None:
            pool.heads.append(block)
        else:
            before.next = block
        (live if handle > 0 else pool.blocks if handle == _FREE else pool.unmapped).append(block)
        before = block
        address += size
