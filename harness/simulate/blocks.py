"""Blocks of device memory, and the pools that list the free ones; the allocator model's bookkeeping."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from operator import attrgetter

from memory_harness.harness.log.allocator_sizes import (
    LARGE_SEGMENT_BYTES,
    MIN_BLOCK_BYTES,
    SMALL_MAX_BYTES,
    SMALL_SEGMENT_BYTES,
)

ADDRESS_BITS = 60  # a free block's key is its size shifted by this, plus its address: plain integers compare fastest
FREE, UNMAPPED = 0, -1  # in place of a handle; handles count from 1


class BlockNode:
    """A block and its neighbours in the segment; a segment's first block stays the same object while it exists."""

    __slots__ = ("address", "handle", "next", "pool", "prev", "requested", "size")

    def __init__(
        self, address: int, size: int, handle: int, prev: BlockNode | None, next: BlockNode | None, pool: BlockPool
    ) -> None:
        self.address = address
        self.size = size
        self.requested = 0
        self.handle = handle
        self.prev = prev
        self.next = next
        self.pool = pool

    @property
    def key(self) -> int:
        """The block's place in the order of size, then address. Source: BlockComparatorSize."""
        return (self.size << ADDRESS_BITS) + self.address

    def chain(self) -> Iterator[BlockNode]:
        """Walk from this block to the end of its segment."""
        block: BlockNode | None = self
        while block is not None:
            yield block
            block = block.next

    def split(self, size: int, rest: int) -> BlockNode:
        """Cut this block to `size` and return the new one that holds the remainder, in state `rest`."""
        after = self.next
        remainder = BlockNode(self.address + size, self.size - size, rest, self, after, self.pool)
        if after is not None:
            after.prev = remainder
        self.next = remainder
        self.size = size
        return remainder

    def absorb_next(self) -> None:
        """Merge the block after this one into it; the pool must no longer list that one."""
        absorbed = self.next
        assert absorbed is not None, "the last block of a segment has nothing to absorb"
        self.size += absorbed.size
        self.next = after = absorbed.next
        if after is not None:
            after.prev = self

    def expandable_size(self) -> int:
        """Return this block's bytes once the unmapped pages right after it are mapped. Source: get_free_block."""
        after = self.next
        if after is None or after.handle != UNMAPPED:
            return self.size
        return self.size + after.size


class BlockPool:
    """The segments of one stream and size class, and their free blocks in order of size, then address."""

    __slots__ = ("blocks", "heads", "is_small", "keys", "min_remainder", "page_bytes", "stream", "unmapped")

    def __init__(self, stream: int, is_small: bool, expandable: bool) -> None:
        self.stream = stream
        self.is_small = is_small
        self.page_bytes = SMALL_SEGMENT_BYTES if is_small else LARGE_SEGMENT_BYTES
        # Source: should_split; the large pool wants a remainder of more than 1 MiB unless segments expand.
        self.min_remainder = MIN_BLOCK_BYTES if is_small or expandable else SMALL_MAX_BYTES + 1
        self.keys: list[int] = []
        self.blocks: list[BlockNode] = []  # the block of the key at the same position
        self.unmapped: list[BlockNode] = []  # in order of address
        self.heads: list[BlockNode] = []  # first block of every segment, in order of address

    def add(self, block: BlockNode) -> None:
        """List a block under its state, free or unmapped."""
        if block.handle == FREE:
            key = (block.size << ADDRESS_BITS) + block.address  # BlockNode.key without the call
            index = bisect_left(self.keys, key)
            self.keys.insert(index, key)
            self.blocks.insert(index, block)
        else:
            insort(self.unmapped, block, key=lambda unmapped: unmapped.address)

    def remove(self, block: BlockNode) -> None:
        """Take a free or unmapped block off its list, before its size or state changes."""
        if block.handle == FREE:
            index = bisect_left(self.keys, (block.size << ADDRESS_BITS) + block.address)
            del self.keys[index]
            del self.blocks[index]
        else:
            self.unmapped.remove(block)

    def add_merged(self, block: BlockNode, state: int) -> BlockNode:
        """List a block that became free or unmapped, merged with neighbours of that state. Source: try_merge_blocks."""
        block.handle = state
        before, after = block.prev, block.next
        if after is not None and after.handle == state:
            self.remove(after)
            block.absorb_next()
        if before is not None and before.handle == state:
            self.remove(before)
            before.absorb_next()
            block = before
        self.add(block)
        return block

    def best_expandable(self, index: int) -> int:
        """Return the place of the block that can grow least, from the smallest that fits. Source: get_free_block."""
        blocks = self.blocks
        last = len(blocks) - 1
        while index < last and blocks[index + 1].expandable_size() < blocks[index].expandable_size():
            index += 1
        return index

    def find_room(self, size: int) -> BlockNode | None:
        """Return the lowest free or unmapped block that can grow to `size`. Source: find_expandable_block."""
        for block in self.unmapped:
            start = block
            if block.prev is not None and block.prev.handle == FREE:
                start = block.prev
            room = 0
            for candidate in start.chain():
                if candidate.handle > 0:
                    break
                room += candidate.size
            if room >= size:
                return start
        return None

    def restore_segment(self, address: int, numbers: tuple[int, ...], live: list[BlockNode]) -> None:
        """Rebuild a segment from the size, requested size and handle of each block; blocks in use go to `live`."""
        before: BlockNode | None = None
        triples = iter(numbers)
        for size, requested, handle in zip(triples, triples, triples, strict=True):
            block = BlockNode(address, size, handle, before, None, self)
            block.requested = requested
            if before is None:
                self.heads.append(block)
            else:
                before.next = block
            if handle > 0:
                live.append(block)
            elif handle == FREE:
                self.blocks.append(block)
            else:
                self.unmapped.append(block)
            before = block
            address += size

    def restore_order(self) -> None:
        """Sort the free blocks once all segments are back, in order of address."""
        self.blocks.sort(key=attrgetter("key"))
        self.keys = list(map(attrgetter("key"), self.blocks))
