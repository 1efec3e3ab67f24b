"""Invariants of the caching allocator under random programs."""

from __future__ import annotations

import random
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from memory_harness.harness.simulate.allocator import AllocatorOutOfMemory, CachingAllocator

MIB = 2**20
BUDGET = 110 * MIB  # no multiple of a page

REQUESTS = st.one_of(
    st.integers(0, 4096),
    st.integers(1, 2 * MIB),
    st.integers(MIB, 30 * MIB),
    st.sampled_from([512, MIB, MIB + 1, 10 * MIB - 512, 10 * MIB, 10 * MIB + 1, 20 * MIB, BUDGET, BUDGET + 1]),
)
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("malloc"), REQUESTS, st.sampled_from([0, 0, 0, 7])),
        st.tuples(st.just("malloc"), REQUESTS, st.sampled_from([0, 0, 0, 7])),
        st.tuples(st.just("free"), st.integers(0, 1000), st.just(0)),
        st.tuples(st.just("empty_cache"), st.just(0), st.just(0)),
    ),
    max_size=60,
)
EXPANDABLE = st.booleans()
Stats = tuple[int, ...]


def stats(allocator: CachingAllocator) -> Stats:
    return (
        allocator.allocated_bytes,
        allocator.reserved_bytes,
        allocator.requested_bytes,
        allocator.active_bytes,
        allocator.inactive_split_bytes,
        allocator.peak_allocated_bytes,
        allocator.peak_reserved_bytes,
        allocator.num_alloc_retries,
        allocator.num_ooms,
        allocator.largest_free_block_bytes(),
    )


class Program:
    """An allocator and the live handles of the program that uses it, oldest first."""

    def __init__(self, expandable: bool) -> None:
        self.allocator = CachingAllocator(BUDGET, expandable_segments=expandable)
        self.live: list[int] = []

    def run(self, operations: list[tuple[str, int, int]]) -> list[Stats]:
        history = []
        for name, number, stream in operations:
            if name == "malloc":
                try:
                    handle = self.allocator.malloc(number, stream)
                except AllocatorOutOfMemory:
                    handle = 0
                self.live += [handle] if handle else []
            elif name == "free" and self.live:
                self.allocator.free(self.live.pop(number % len(self.live)))
            elif name == "empty_cache":
                self.allocator.empty_cache()
            history.append(stats(self.allocator))
        return history


def check(program: Program) -> None:
    allocator = program.allocator
    segments = allocator.segments()
    used = {b.handle: b for s in segments for b in s.blocks if b.handle is not None}
    assert sorted(used) == program.live
    assert allocator.allocated_bytes == allocator.active_bytes == sum(b.size_bytes for b in used.values())
    assert allocator.requested_bytes == sum(b.requested_bytes for b in used.values())
    assert all(b.requested_bytes <= b.size_bytes for b in used.values())
    assert allocator.reserved_bytes == sum(s.size_bytes for s in segments)
    assert allocator.reserved_bytes <= allocator.peak_reserved_bytes <= BUDGET
    assert allocator.allocated_bytes <= allocator.peak_allocated_bytes
    free = [b.size_bytes for s in segments for b in s.blocks if b.handle is None]
    assert allocator.largest_free_block_bytes() == max(free, default=0)
    if not allocator.expandable_segments:
        split = sum(b.size_bytes for s in segments for b in s.blocks if b.handle is None and len(s.blocks) > 1)
        assert allocator.inactive_split_bytes == split
    end = 0
    for segment in segments:
        assert segment.address >= end
        end = segment.address + segment.size_bytes
        place = 0
        for block in segment.blocks:  # contiguous, so nothing overlaps and nothing is lost
            assert block.offset_bytes == place
            assert block.size_bytes > 0
            assert block.size_bytes % 512 == 0
            place += block.size_bytes
        assert place == segment.size_bytes
        states = [block.handle is None for block in segment.blocks]
        assert not any(a and b for a, b in pairwise(states)), "adjacent free blocks"


@given(EXPANDABLE, OPERATIONS)
@settings(max_examples=150, deadline=None)
def test_every_state_is_sound(expandable: bool, operations: list[tuple[str, int, int]]) -> None:
    program = Program(expandable)
    for operation in operations:
        program.run([operation])
        check(program)


@given(EXPANDABLE, OPERATIONS)
@settings(max_examples=50, deadline=None)
def test_freeing_everything_leaves_nothing(expandable: bool, operations: list[tuple[str, int, int]]) -> None:
    program = Program(expandable)
    program.run(operations)
    for handle in program.live:
        program.allocator.free(handle)
    assert program.allocator.allocated_bytes == program.allocator.requested_bytes == 0
    assert program.allocator.inactive_split_bytes == 0
    program.allocator.empty_cache()
    assert program.allocator.reserved_bytes == 0
    assert program.allocator.segments() == []


@given(EXPANDABLE, OPERATIONS)
@settings(max_examples=30, deadline=None)
def test_the_same_program_gives_the_same_history(expandable: bool, operations: list[tuple[str, int, int]]) -> None:
    one, other = Program(expandable), Program(expandable)
    assert one.run(operations) == other.run(operations)
    assert one.allocator.segments() == other.allocator.segments()


@given(EXPANDABLE, OPERATIONS, OPERATIONS, OPERATIONS)
@settings(max_examples=80, deadline=None)
def test_load_restores_what_was_saved(
    expandable: bool,
    before: list[tuple[str, int, int]],
    between: list[tuple[str, int, int]],
    after: list[tuple[str, int, int]],
) -> None:
    program = Program(expandable)
    program.run(before)
    state, live, print_before = program.allocator.save(), list(program.live), program.allocator.fingerprint()
    history, segments = program.run(after), program.allocator.segments()
    program.run(between)
    program.allocator.load(state)
    program.live = list(live)
    assert program.allocator.save() == state
    assert program.allocator.fingerprint() == print_before
    check(program)
    assert program.run(after) == history
    assert program.allocator.segments() == segments

    fresh = Program(expandable)
    fresh.allocator.load(state)
    fresh.live = live
    assert fresh.run(after) == history


def deltas(history: list[Stats], start: Stats) -> list[Stats]:
    """What each operation changed in all but the peaks, which start from different values."""
    return [
        tuple(b - a for n, (a, b) in enumerate(zip(one, two, strict=True)) if n not in (5, 6))
        for one, two in zip([start, *history], history, strict=False)
    ]


@given(EXPANDABLE, st.integers(0, 10**6), OPERATIONS)
@settings(max_examples=80, deadline=None)
def test_equal_fingerprints_have_equal_futures(expandable: bool, seed: int, after: list[tuple[str, int, int]]) -> None:
    """Two programs with unlike pasts, so unlike handles, addresses and counters, that end in alike states."""
    rng = random.Random(seed)
    kept = [rng.choice((100, 5000, MIB, 3 * MIB, 11 * MIB)) for _ in range(rng.randrange(6))]
    one, other = Program(expandable), Program(expandable)
    past = [("malloc", rng.randrange(1, 20 * MIB), 0) for _ in range(5)] + [("free", 0, 0)] * 5
    one.run([*past, ("malloc", BUDGET + 1, 0), ("empty_cache", 0, 0)])
    for program in (one, other):
        program.run([("malloc", num_bytes, 0) for num_bytes in kept])
    assert one.allocator.num_ooms != other.allocator.num_ooms
    assert one.allocator.fingerprint() == other.allocator.fingerprint()
    starts = stats(one.allocator), stats(other.allocator)
    futures = one.run(after), other.run(after)
    assert deltas(futures[0], starts[0]) == deltas(futures[1], starts[1])
    assert one.allocator.fingerprint() == other.allocator.fingerprint()


def test_fingerprint_tells_apart_what_the_future_depends_on() -> None:
    prints = set()
    for budget, expandable, requests, freed in [
        (BUDGET, False, [512, 1024], []),
        (BUDGET + 512, False, [512, 1024], []),
        (None, False, [512, 1024], []),
        (BUDGET, True, [512, 1024], []),
        (BUDGET, False, [1024, 512], []),
        (BUDGET, False, [511, 1024], []),
        (BUDGET, False, [512, 1024], [0]),
        (BUDGET, False, [512, 1024], [1]),
        (BUDGET, False, [], []),
    ]:
        allocator = CachingAllocator(budget, expandable_segments=expandable)
        handles = [allocator.malloc(num_bytes) for num_bytes in requests]
        for n in freed:
            allocator.free(handles[n])
        prints.add(allocator.fingerprint())
    assert len(prints) == 9


def test_fingerprint_knows_which_of_two_equal_blocks_is_older() -> None:
    """Freeing the oldest handle must free the same block in both."""
    prints = []
    for swap in (False, True):
        allocator = CachingAllocator(BUDGET)
        first, _second = allocator.malloc(MIB), allocator.malloc(512)
        if swap:
            allocator.free(first)
            allocator.malloc(MIB)
        prints.append(allocator.fingerprint())
    assert prints[0] != prints[1]
