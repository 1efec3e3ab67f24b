"""One test per rule of the caching allocator, each named after the function of torch's source that holds the rule."""

from __future__ import annotations

import pytest

from memory_harness.harness.simulate.allocator import GRAPH_POOL, AllocatorOutOfMemory, CachingAllocator, Segment

KIB, MIB = 2**10, 2**20


def only_segment(allocator: CachingAllocator) -> Segment:
    (segment,) = allocator.segments()
    return segment


def sizes(segment: Segment) -> list[int]:
    return [block.size_bytes for block in segment.blocks]


def offset(allocator: CachingAllocator, handle: int) -> int:
    """The absolute model address of a live handle."""
    return next(s.address + b.offset_bytes for s in allocator.segments() for b in s.blocks if b.handle == handle)


@pytest.mark.parametrize(("num_bytes", "block_bytes"), [(1, 512), (511, 512), (512, 512), (513, 1024), (1025, 1536)])
def test_round_size(num_bytes: int, block_bytes: int) -> None:
    allocator = CachingAllocator()
    allocator.malloc(num_bytes)
    assert allocator.allocated_bytes == allocator.active_bytes == block_bytes
    assert allocator.requested_bytes == num_bytes


def test_empty_request_allocates_nothing_and_can_be_freed() -> None:
    allocator = CachingAllocator()
    assert allocator.malloc(0) == 0
    allocator.free(0)
    assert allocator.segments() == []
    assert allocator.reserved_bytes == 0


def test_negative_request_is_refused() -> None:
    with pytest.raises(ValueError, match="-1"):
        CachingAllocator().malloc(-1)


@pytest.mark.parametrize(
    ("num_bytes", "pool", "segment_bytes"),
    [
        (1, "small", 2 * MIB),
        (MIB, "small", 2 * MIB),
        (MIB + 1, "large", 20 * MIB),
        (10 * MIB - 512, "large", 20 * MIB),
        (10 * MIB - 511, "large", 10 * MIB),  # rounds to 10 MiB first
        (10 * MIB, "large", 10 * MIB),
        (10 * MIB + 1, "large", 12 * MIB),
        (12 * MIB, "large", 12 * MIB),
        (8405385216, "large", 8405385216 + -8405385216 % (2 * MIB)),
    ],
)
def test_get_pool_and_get_allocation_size(num_bytes: int, pool: str, segment_bytes: int) -> None:
    allocator = CachingAllocator()
    allocator.malloc(num_bytes)
    segment = only_segment(allocator)
    assert (segment.pool, segment.size_bytes) == (pool, segment_bytes)
    assert allocator.reserved_bytes == allocator.peak_reserved_bytes == segment_bytes


def test_pools_do_not_lend_to_each_other() -> None:
    allocator = CachingAllocator()
    allocator.free(allocator.malloc(20 * MIB))
    allocator.malloc(512)
    assert allocator.reserved_bytes == 22 * MIB


def test_streams_do_not_lend_to_each_other() -> None:
    allocator = CachingAllocator()
    allocator.free(allocator.malloc(4 * MIB, stream=0))
    allocator.malloc(4 * MIB, stream=7)
    assert [segment.stream for segment in allocator.segments()] == [0, 7]


def test_should_split_small_from_512_bytes() -> None:
    allocator = CachingAllocator()
    allocator.malloc(MIB)
    allocator.malloc(MIB - 512)
    assert sizes(only_segment(allocator)) == [MIB, MIB - 512, 512]


@pytest.mark.parametrize(("num_bytes", "tail_bytes"), [(11 * MIB, 0), (11 * MIB - 512, MIB + 512)])
def test_should_split_large_only_above_1_mib(num_bytes: int, tail_bytes: int) -> None:
    allocator = CachingAllocator()
    allocator.malloc(num_bytes)
    assert allocator.allocated_bytes == 12 * MIB - tail_bytes
    assert allocator.inactive_split_bytes == tail_bytes


def test_unsplit_tail_counts_as_allocated_and_not_as_requested() -> None:
    allocator = CachingAllocator()
    handle = allocator.malloc(11 * MIB)
    assert allocator.allocated_bytes == allocator.peak_allocated_bytes == 12 * MIB
    assert allocator.requested_bytes == 11 * MIB
    allocator.free(handle)
    assert (allocator.allocated_bytes, allocator.requested_bytes) == (0, 0)


def carve(allocator: CachingAllocator, holes: list[int]) -> list[int]:
    """Leave free holes of these sizes, kept apart by live blocks; return the holes' addresses."""
    handles = []
    for hole in holes:
        handles.append(allocator.malloc(hole))
        allocator.malloc(512)
    addresses = [offset(allocator, handle) for handle in handles]
    for handle in handles:
        allocator.free(handle)
    return addresses


def test_get_free_block_takes_the_smallest_that_fits() -> None:
    allocator = CachingAllocator()
    addresses = carve(allocator, [64 * KIB, 16 * KIB, 32 * KIB])
    assert offset(allocator, allocator.malloc(12 * KIB)) == addresses[1]


def test_get_free_block_takes_the_lowest_address_on_a_tie() -> None:
    allocator = CachingAllocator()
    addresses = carve(allocator, [16 * KIB, 16 * KIB, 16 * KIB])
    assert offset(allocator, allocator.malloc(16 * KIB)) == addresses[0]
    assert offset(allocator, allocator.malloc(16 * KIB)) == addresses[1]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (0, 2, 1), (1, 0, 2)])
def test_try_merge_blocks_joins_free_neighbours_in_any_order(order: tuple[int, ...]) -> None:
    allocator = CachingAllocator()
    handles = [allocator.malloc(4 * MIB) for _ in range(3)]
    for n in order:
        allocator.free(handles[n])
    assert sizes(only_segment(allocator)) == [20 * MIB]
    assert allocator.inactive_split_bytes == 0
    assert allocator.largest_free_block_bytes() == 20 * MIB


def test_segments_never_merge() -> None:
    allocator = CachingAllocator()
    for handle in [allocator.malloc(20 * MIB), allocator.malloc(20 * MIB)]:
        allocator.free(handle)
    assert [sizes(segment) for segment in allocator.segments()] == [[20 * MIB], [20 * MIB]]


def test_inactive_split_counts_free_parts_of_used_segments_only() -> None:
    allocator = CachingAllocator()
    kept = allocator.malloc(4 * MIB)
    allocator.free(allocator.malloc(40 * MIB))
    assert allocator.inactive_split_bytes == 16 * MIB
    allocator.free(kept)
    assert allocator.inactive_split_bytes == 0


def test_empty_cache_releases_wholly_free_segments_only() -> None:
    allocator = CachingAllocator()
    allocator.malloc(4 * MIB)
    allocator.free(allocator.malloc(40 * MIB))
    allocator.free(allocator.malloc(512))
    assert allocator.reserved_bytes == 62 * MIB
    allocator.empty_cache()
    assert sizes(only_segment(allocator)) == [4 * MIB, 16 * MIB]
    assert (allocator.reserved_bytes, allocator.peak_reserved_bytes) == (20 * MIB, 62 * MIB)
    assert allocator.num_alloc_retries == 0


def test_budget_may_be_reached_but_not_passed() -> None:
    allocator = CachingAllocator(40 * MIB)
    allocator.malloc(40 * MIB)
    with pytest.raises(AllocatorOutOfMemory):
        allocator.malloc(1)
    assert allocator.reserved_bytes == 40 * MIB


def test_malloc_retries_after_releasing_the_cache() -> None:
    allocator = CachingAllocator(40 * MIB)
    allocator.free(allocator.malloc(30 * MIB))
    allocator.malloc(32 * MIB)
    assert (allocator.num_alloc_retries, allocator.num_ooms) == (1, 0)
    assert allocator.reserved_bytes == 32 * MIB
    assert allocator.peak_reserved_bytes == 32 * MIB


def test_out_of_memory_reports_and_leaves_the_cache_released() -> None:
    allocator = CachingAllocator(60 * MIB)
    kept = allocator.malloc(4 * MIB)
    allocator.free(allocator.malloc(30 * MIB))
    with pytest.raises(AllocatorOutOfMemory) as caught:
        allocator.malloc(50 * MIB + 1)
    assert caught.value.requested_bytes == 50 * MIB + 1
    assert caught.value.allocated_bytes == 4 * MIB
    assert caught.value.reserved_bytes == 20 * MIB  # the 30 MiB segment went back to the device
    assert caught.value.largest_free_block_bytes == 16 * MIB
    assert (allocator.num_alloc_retries, allocator.num_ooms) == (1, 1)
    allocator.free(kept)
    allocator.malloc(50 * MIB)  # the program can go on; this takes one more retry
    assert (allocator.num_alloc_retries, allocator.num_ooms, allocator.reserved_bytes) == (2, 1, 50 * MIB)


def test_fragmentation_fails_a_request_that_the_free_bytes_could_hold() -> None:
    allocator = CachingAllocator(40 * MIB)
    handles = [allocator.malloc(5 * MIB) for _ in range(8)]
    for handle in handles[::2]:
        allocator.free(handle)
    assert allocator.reserved_bytes - allocator.allocated_bytes == 20 * MIB
    with pytest.raises(AllocatorOutOfMemory) as caught:
        allocator.malloc(10 * MIB)
    assert caught.value.largest_free_block_bytes == 5 * MIB


@pytest.mark.parametrize("handle", [99, -1])
def test_free_refuses_an_unknown_handle(handle: int) -> None:
    with pytest.raises(ValueError, match=str(handle)):
        CachingAllocator().free(handle)


def test_free_refuses_a_second_free_even_if_the_address_is_in_use_again() -> None:
    allocator = CachingAllocator()
    handle = allocator.malloc(512)
    allocator.free(handle)
    allocator.malloc(512)
    with pytest.raises(ValueError, match="not allocated"):
        allocator.free(handle)


@pytest.mark.parametrize("budget_bytes", [0, -1])
def test_budget_must_be_positive(budget_bytes: int) -> None:
    with pytest.raises(ValueError, match="budget_bytes"):
        CachingAllocator(budget_bytes)


def test_reset_peaks() -> None:
    allocator = CachingAllocator()
    allocator.free(allocator.malloc(30 * MIB))
    allocator.empty_cache()
    allocator.malloc(MIB)
    assert (allocator.peak_allocated_bytes, allocator.peak_reserved_bytes) == (30 * MIB, 30 * MIB)
    allocator.reset_peaks()
    assert (allocator.peak_allocated_bytes, allocator.peak_reserved_bytes) == (MIB, 2 * MIB)


def test_block_states_are_named_as_in_a_memory_snapshot() -> None:
    allocator = CachingAllocator()
    allocator.malloc(100)
    used, free = only_segment(allocator).blocks
    assert (used.state, used.requested_bytes) == ("active_allocated", 100)
    assert (free.state, free.requested_bytes) == ("inactive", 0)


# Expandable segments


def expandable(budget_bytes: int | None = None) -> CachingAllocator:
    return CachingAllocator(budget_bytes, expandable_segments=True)


def test_expandable_maps_2_mib_pages_for_small_and_20_mib_pages_for_large_blocks() -> None:
    allocator = expandable()
    allocator.malloc(512)
    assert allocator.reserved_bytes == 2 * MIB
    allocator.malloc(30 * MIB)
    assert allocator.reserved_bytes == 42 * MIB


def test_expandable_grows_one_segment_by_the_missing_pages_only() -> None:
    allocator = expandable()
    allocator.malloc(30 * MIB)  # leaves 10 MiB of the second page free
    allocator.malloc(25 * MIB)  # needs 15 MiB more
    assert sizes(only_segment(allocator)) == [30 * MIB, 25 * MIB, 5 * MIB]


def test_expandable_splits_large_blocks_from_512_bytes_and_has_no_inactive_split() -> None:
    allocator = expandable()
    allocator.malloc(20 * MIB - 512)
    assert sizes(only_segment(allocator)) == [20 * MIB - 512, 512]
    assert allocator.inactive_split_bytes == 0


def test_expandable_prefers_a_hole_to_the_end_that_can_grow() -> None:
    allocator = expandable()
    hole = allocator.malloc(12 * MIB)
    allocator.malloc(4 * MIB)
    allocator.malloc(16 * MIB)  # 32 of 40 MiB used; the free end is 8 MiB, smaller than the hole
    address = offset(allocator, hole)
    allocator.free(hole)
    assert offset(allocator, allocator.malloc(6 * MIB)) == address


def test_expandable_empty_cache_unmaps_wholly_free_pages_only() -> None:
    allocator = expandable()
    first = allocator.malloc(50 * MIB)
    allocator.malloc(20 * MIB)  # from 50 to 70 MiB, so pages 0, 1 can go, and page 2 (40 to 60) cannot
    allocator.free(first)
    allocator.empty_cache()
    segment = only_segment(allocator)
    assert sizes(segment) == [10 * MIB, 20 * MIB, 10 * MIB]
    assert allocator.reserved_bytes == 40 * MIB


def test_expandable_fills_unmapped_gaps_at_the_lowest_address_first() -> None:
    allocator = expandable()
    first = allocator.malloc(40 * MIB)
    start = offset(allocator, first)
    allocator.malloc(20 * MIB)
    allocator.free(first)
    allocator.empty_cache()
    assert offset(allocator, allocator.malloc(30 * MIB)) == start
    assert allocator.reserved_bytes == 60 * MIB


def test_expandable_empty_segment_disappears() -> None:
    allocator = expandable()
    empty = allocator.fingerprint()
    allocator.free(allocator.malloc(50 * MIB))
    allocator.empty_cache()
    assert allocator.segments() == []
    assert allocator.reserved_bytes == 0
    assert allocator.fingerprint() == empty


def test_expandable_unmaps_on_the_retry_where_plain_segments_fail() -> None:
    outcomes = []
    for allocator in (CachingAllocator(80 * MIB), expandable(80 * MIB)):
        handles = [allocator.malloc(20 * MIB) for _ in range(4)]
        allocator.free(handles[0])
        allocator.free(handles[2])
        allocator.malloc(40 * MIB)
        outcomes.append((allocator.num_alloc_retries, allocator.reserved_bytes, allocator.num_ooms))
    assert outcomes == [(1, 80 * MIB, 0), (1, 80 * MIB, 0)]


def test_expandable_survives_growing_lengths_that_fragment_plain_segments() -> None:
    def churn(allocator: CachingAllocator) -> None:
        for num_bytes in (30 * MIB, 34 * MIB, 38 * MIB):
            allocator.free(allocator.malloc(num_bytes))
            allocator.malloc(4 * MIB)  # pins the 30 MiB segment, as best fit
        allocator.malloc(100 * MIB)

    churn(expandable(125 * MIB))  # 12 MiB in use, so 112 MiB in 6 pages
    churn(CachingAllocator(130 * MIB))
    with pytest.raises(AllocatorOutOfMemory):
        churn(CachingAllocator(125 * MIB))


def test_expandable_empty_cache_leaves_a_free_block_without_a_whole_page_alone() -> None:
    allocator = expandable()
    handles = [allocator.malloc(num_bytes) for num_bytes in (15 * MIB, 10 * MIB, 15 * MIB)]
    allocator.free(handles[1])  # from 15 to 25 MiB, across the border of two pages
    allocator.empty_cache()
    assert sizes(only_segment(allocator)) == [15 * MIB, 10 * MIB, 15 * MIB]


def test_expandable_does_not_map_a_page_beyond_the_budget() -> None:
    allocator = expandable(30 * MIB)
    with pytest.raises(AllocatorOutOfMemory):
        allocator.malloc(22 * MIB)  # passes alloc_block's test, but would take two pages
    assert allocator.reserved_bytes == 0


def test_expandable_failed_growth_stays_within_the_budget() -> None:
    allocator = expandable(70 * MIB)
    allocator.malloc(50 * MIB)
    with pytest.raises(AllocatorOutOfMemory):
        allocator.malloc(18 * MIB)  # 10 MiB are free at the end, and a fourth page would pass the budget
    assert allocator.reserved_bytes == 60 * MIB
    allocator.malloc(10 * MIB)
    assert allocator.allocated_bytes == 60 * MIB


def test_a_private_pool_keeps_its_segments_until_it_is_released() -> None:
    """Source: release_cached_blocks, which passes over pools that a graph uses."""
    allocator = CachingAllocator()
    ordinary, private = allocator.malloc(30 * MIB), allocator.malloc(30 * MIB, GRAPH_POOL)
    assert allocator.reserved_bytes == 60 * MIB
    allocator.free(ordinary)
    allocator.free(private)
    allocator.empty_cache()
    assert allocator.reserved_bytes == 30 * MIB
    allocator.malloc(20 * MIB)  # of its own: none but the pool's may take what is free there
    assert allocator.reserved_bytes == 50 * MIB
    allocator.empty_cache(of_graphs=True)
    assert allocator.reserved_bytes == 20 * MIB


def test_a_private_pool_that_finds_no_room_releases_nothing() -> None:
    """Source: malloc, where captures_underway is not empty."""
    allocator = CachingAllocator(50 * MIB)
    allocator.free(allocator.malloc(30 * MIB))
    with pytest.raises(AllocatorOutOfMemory):
        allocator.malloc(30 * MIB, GRAPH_POOL)
    assert (allocator.num_alloc_retries, allocator.num_ooms) == (0, 1)
    allocator.free(allocator.malloc(40 * MIB))
    assert allocator.num_alloc_retries == 1
