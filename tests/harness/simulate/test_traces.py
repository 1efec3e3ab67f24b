"""Compiled traces: sizes fitted at three shapes hold at any other; a replayed chain is what running it would be."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import Qwen2Config

from memory_harness.configs.cards import find_card
from memory_harness.configs.schema import RunConfig
from memory_harness.configs.units import MIB
from memory_harness.harness.data.batching import Batch
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.log.errors import DeviceOutOfMemory
from memory_harness.harness.log.records import REQUEST, MemoryStats, Phase
from memory_harness.harness.simulate.memoized import NUM_UNSAVED, MemoizedMemory
from memory_harness.harness.simulate.memory import SimulatedMemory
from memory_harness.harness.simulate.trace import (
    EMPTY_CACHE,
    FREE,
    LENGTHS,
    RENAME,
    Event,
    TraceFamily,
    canonical,
    fit_size,
)
from memory_harness.harness.strategies.compiled import CompiledStrategy
from memory_harness.harness.strategies.qlora import QLoraStrategy
from tests.harness.simulate.test_tracing import TINY, batch

SHAPES = [(1, 277), (2, 1003), (3, 640)]
shapes = st.tuples(st.integers(1, 16), st.integers(1, 8192))


@given(st.integers(1, 10**6), st.integers(0, 1), st.sampled_from(range(len(LENGTHS))), shapes)
def test_a_size_of_a_known_form_is_recovered(factor: int, power: int, form: int, shape: tuple[int, int]) -> None:
    def size_at(at: tuple[int, int]) -> int:
        return factor * at[0] ** power * LENGTHS[form](at[1])

    fitted = fit_size(SHAPES, [size_at(at) for at in SHAPES])
    assert fitted is not None
    assert fitted(shape) == size_at(shape)


@given(st.integers(1, 4096), st.integers(0, 10**6), shapes)
def test_a_size_that_grows_with_the_tokens_from_an_offset_is_recovered(
    slope: int, offset: int, shape: tuple[int, int]
) -> None:
    fitted = fit_size(SHAPES, [offset + slope * b * n for b, n in SHAPES])
    assert fitted is not None
    assert fitted(shape) == offset + slope * shape[0] * shape[1]


def test_a_size_that_follows_no_rule_is_not_fitted() -> None:
    assert fit_size(SHAPES, [100, 200, 999]) is None


def events_at(size: int, key: int = 7) -> list[list[Event]]:
    return [[(key, size, ())], [(key, FREE, None)]]


def test_a_family_answers_new_shapes_only_after_a_third_recording_has_confirmed_the_fit() -> None:
    family = TraceFamily()
    for count, (batch_size, length) in enumerate(SHAPES):
        assert family.get((batch_size, length)) is None
        family.add((batch_size, length), events_at(12 * batch_size * length, key=count))
        assert (family.get((4, 100)) is not None) == (count == 2)
    chain = family.get((4, 100))
    assert chain is not None
    assert chain[0][0][1] == 12 * 4 * 100


def test_a_derived_chain_is_what_would_be_recorded_there() -> None:
    def recording(batch_size: int, length: int) -> list[list[Event]]:
        first: list[Event] = [(0, 8 * length, ("line",)), (1, batch_size * length**2, ()), (0, FREE, None)]
        return [first, [(None, EMPTY_CACHE, None)], [], [(1, RENAME, ("loss",)), (2, 512, ()), (("loss",), FREE, None)]]

    family = TraceFamily()
    for shape in SHAPES:
        family.add(shape, recording(*shape))
    derived = family.get((4, 100))
    assert derived is not None
    assert [list(phase) for phase in derived] == recording(4, 100)
    assert list(map(len, derived)) == [3, 1, 0, 3]
    family.add(SHAPES[0], recording(4, 100)[:0])  # another chain at the shape that was recorded first
    assert family.get((5, 100)) is None


def test_a_family_whose_events_differ_keeps_asking_for_recordings() -> None:
    family = TraceFamily()
    for batch_size, length in SHAPES:
        extra: list[Event] = [(9, 5, ()), (9, FREE, None)] if length == 640 else []
        family.add((batch_size, length), [events_at(4)[0] + extra, events_at(4)[1]])
    assert family.get((8, 200)) is None
    assert family.get((4, 100)) is None


def test_canonical_keys_do_not_depend_on_what_was_traced_before() -> None:
    assert canonical(events_at(5, key=7)) == canonical(events_at(5, key=1234))


def compiled(budget_bytes: int, config: RunConfig = TINY) -> CompiledStrategy:
    device = SimulatedDevice(find_card("t4"), budget_bytes, computes=False)
    return CompiledStrategy(QLoraStrategy(config, device), device)


def step(strategy: CompiledStrategy | QLoraStrategy, *batches: Batch) -> None:
    for each in batches:
        strategy.put(each, training=True)
        strategy.forward(10)
        strategy.backward()
    strategy.optimizer_step(1e-4)


def live_run(config: RunConfig, batches: list[Batch]) -> list[MemoryStats]:
    """Return the counters after each step, every phase run."""
    device = SimulatedDevice(find_card("t4"), 2**34, computes=False)
    strategy = QLoraStrategy(config, device)
    with device.active():
        strategy.load()
        return [stats_of_step(strategy, device, each) for each in batches]


def replayed_run(strategy: CompiledStrategy, batches: list[Batch]) -> list[MemoryStats]:
    """Return the same, phases recorded once and replayed."""
    with strategy.device.active():
        strategy.load()
        return [stats_of_step(strategy, strategy.device, each) for each in batches]


def stats_of_step(strategy: CompiledStrategy | QLoraStrategy, device: SimulatedDevice, each: Batch) -> MemoryStats:
    device.reset_peaks()
    step(strategy, each)
    return device.stats()


def batches_of(*lengths: int) -> list[Batch]:
    return [batch((length - 1,), length) for length in lengths]


def test_replaying_gives_what_running_gives_at_every_length() -> None:
    """Every phase run, phases recorded and replayed, and at lengths that were never run."""
    batches = batches_of(72, 128, 96, 160, 192, 72, 224, 128)
    replayed = compiled(2**34)
    assert replayed_run(replayed, batches) == live_run(TINY, batches)
    # load, 3 lengths of the first micro-batch, the first and a later optimizer step
    assert replayed.num_traced == 6


@pytest.fixture
def biased(tmp_path: Path) -> RunConfig:
    """A model with biases in its 4-bit layers, whose configuration does not say how large a head is."""
    shape = Qwen2Config(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
    )
    shape.save_pretrained(tmp_path)
    return TINY.with_fields(model=str(tmp_path))


def test_biases_that_the_first_pass_casts_are_recorded_apart(biased: RunConfig) -> None:
    batches = batches_of(72, 128, 96, 160, 192, 72, 224, 128)
    replayed = compiled(2**34, biased)
    assert replayed_run(replayed, batches) == live_run(biased, batches)
    assert replayed.num_traced == 7  # one more: the first pass


def test_a_second_run_casts_the_biases_again_at_another_length(biased: RunConfig) -> None:
    replayed = compiled(2**34, biased)
    replayed_run(replayed, batches_of(72, 128, 96, 160))
    replayed.restart(2**34, expandable_segments=False)
    batches = batches_of(200, 72, 136)
    assert replayed_run(replayed, batches) == live_run(biased, batches)


def test_a_model_without_a_stated_head_size_generates(biased: RunConfig) -> None:
    replayed = compiled(2**34, biased)
    replayed_run(replayed, batches_of(72))
    with replayed.device.active():
        replayed.prefill([[5] * 9, [6] * 12])
        assert replayed.decode() == [0, 0]
        replayed.release()


def test_a_second_run_needs_no_recording_and_ends_the_same() -> None:
    strategy = compiled(2**34)
    with strategy.device.active():
        results = []
        for _ in range(2):
            strategy.load()
            step(strategy, batch((30,), 32), batch((20,), 32))
            parts = strategy.device.memory.peak_parts(of_failure=False)
            results.append((strategy.device.stats(), strategy.num_traced, parts))
            strategy.restart(2**34, expandable_segments=False)
    assert results[0] == results[1]
    stats, _, parts = results[0]
    assert sum(part.num_bytes for part in parts) == stats.peak_allocated_bytes
    assert {"parameter", "activation"} <= {part.category for part in parts}
    assert any(part.code for part in parts if part.category == "activation")


def test_what_phases_took_is_told_by_layer() -> None:
    strategy = compiled(2**34)
    with strategy.device.active():
        strategy.load()
        step(strategy, batch((30,), 32))
        peaks = {record.phase: record for record in strategy.device.phase_peaks({}, 0)}
    forward = peaks[Phase.FORWARD]
    in_layers = [forward.layers[f"layers.{number}"]["activations"] for number in range(2)]
    assert in_layers[0] == in_layers[1] > 0
    assert sum(in_layers) < forward.kinds["activations"]
    states = [sizes.get("optimizer", 0) for sizes in peaks[Phase.OPTIMIZER].layers.values()]
    assert sum(states) >= 0.9 * peaks[Phase.OPTIMIZER].kinds["optimizer"]


def test_starting_over_ends_as_on_a_memory_that_remembers_nothing() -> None:
    ends = []
    for starts_over in (True, False):
        strategy = compiled(48 * MIB)
        with strategy.device.active():
            for lengths in ((30, 20), (20,), (30, 20, 30), (20, 2000)):
                if starts_over:
                    strategy.start_over()
                else:
                    strategy.restart(48 * MIB, expandable_segments=False)
                strategy.load()
                try:
                    for length in lengths:
                        step(strategy, batch((length,), length + 12))
                except DeviceOutOfMemory as failure:
                    ends.append(failure.requested_bytes)
                ends.append((strategy.device.stats(), strategy.device.segments_at_peak()))
    assert ends[: len(ends) // 2] == ends[len(ends) // 2 :]


def test_an_allocation_beyond_the_budget_fails_where_it_was_asked_for() -> None:
    strategy = compiled(48 * MIB)
    with strategy.device.active():
        strategy.load()
        step(strategy, batch((30,), 32))
        with pytest.raises(DeviceOutOfMemory) as failure:
            step(strategy, batch((2000,), 2048))
    assert failure.value.reserved_bytes <= 48 * MIB
    assert failure.value.where is not None
    assert strategy.device.stats().num_ooms == 1
    assert sum(strategy.device.live_bytes({}).values()) > 0
    parts = strategy.device.memory.peak_parts(of_failure=True)
    needed = failure.value.allocated_bytes + failure.value.requested_bytes
    assert sum(part.num_bytes for part in parts) == needed
    (request,) = [part for part in parts if part.category == REQUEST]
    assert request.num_bytes == failure.value.requested_bytes


def test_generation_frees_its_cache_and_grows_with_the_tokens() -> None:
    strategy = compiled(2**34)
    with strategy.device.active():
        strategy.load()
        floor = strategy.device.stats().allocated_bytes
        strategy.prefill([[1] * 40])
        after_prompt = strategy.device.stats().allocated_bytes
        for _ in range(30):
            strategy.decode()
        assert strategy.device.stats().allocated_bytes > after_prompt
        strategy.release()
        # one workspace stays
        assert strategy.device.stats().allocated_bytes - floor == 8519680


def test_training_recorded_after_a_replayed_generation_still_recomputes_its_activations() -> None:
    peaks = []
    for generates in (False, True):
        strategy = compiled(2**34)
        with strategy.device.active():
            strategy.load()
            for _ in range(2 if generates else 0):
                strategy.prefill([[1] * 40])
                strategy.decode()
                strategy.release()
            strategy.device.empty_cache()
            strategy.device.reset_peaks()
            step(strategy, batch((500,), 512))
            peaks.append(strategy.device.stats().peak_allocated_bytes)
    # the cuBLAS workspace is the same one
    assert peaks[0] == peaks[1]


def test_memoised_chains_add_the_retries_of_their_own_start_only() -> None:
    chain: list[list[Event]] = [[(0, 40 * MIB, ()), (0, FREE, None)], [(1, 44 * MIB, ()), (1, FREE, None)]]
    memoised = MemoizedMemory(SimulatedMemory(64 * MIB))
    retries = []
    for _ in range(4):
        memoised.begin("chain", chain)
        memoised.next_phase()
        memoised.next_phase()
        retries.append(memoised.stats().num_alloc_retries)
    # the first time, the 40 MiB segment has to go before one of 44 MiB fits; that one then serves both
    assert retries == [1, 1, 1, 1]


def test_memoised_peaks_cover_all_phases_since_the_last_reset() -> None:
    memoised = MemoizedMemory(SimulatedMemory(None))
    for _ in range(2):
        memoised.reset_peaks()
        memoised.begin("chain", [[(0, 30 * MIB, ()), (0, FREE, None)], [(1, 2 * MIB, ()), (1, FREE, None)]])
        memoised.next_phase()
        memoised.next_phase()
        assert memoised.stats().peak_allocated_bytes == 30 * MIB
        assert dataclasses.replace(memoised.stats()).allocated_bytes == 0


def test_memoised_segments_at_the_peak_are_those_of_the_highest_moment_of_all_chains() -> None:
    memoised = MemoizedMemory(SimulatedMemory(None))
    for key, size in (("kept", 5), ("low", 30), ("high", 44), ("low", 30)):
        end: list[Event] = [] if key == "kept" else [(key, FREE, None)]
        memoised.begin(key, [[("small", 4096, ()), ("small", FREE, None)], [(key, size * MIB, ()), *end]])
        memoised.next_phase()
        memoised.next_phase()
    before = memoised.stats()
    in_use = [sum(segment.runs[::2]) for segment in memoised.segments_at_peak() if segment.pool == "large"]
    assert sorted(in_use) == [0, 5 * MIB, 44 * MIB]
    assert memoised.stats() == before
    memoised.begin("low", [[("low", 30 * MIB, ()), ("low", FREE, None)]])
    memoised.next_phase()
    assert memoised.stats().allocated_bytes == 5 * MIB


def test_states_that_do_not_come_again_are_found_by_what_leads_to_them() -> None:
    memoised, whole = MemoizedMemory(SimulatedMemory(None)), SimulatedMemory(None)
    states = []
    for token in range(3 * NUM_UNSAVED):
        cache: list[Event] = [(token, (token + 1) * MIB, ()), (token - 1, FREE, None)]
        memoised.begin("decode", [cache], comes_again=False)
        states.append((memoised.recent[-1].start, sorted(whole.live()), whole.allocator.reserved_bytes))
        memoised.next_phase()
        whole.replay(cache)
    for state, live, reserved in states:
        memory = memoised.memory_at(state)
        assert sorted(memory.live()) == live
        assert memory.allocator.reserved_bytes == reserved
    assert sorted(memoised.live()) == sorted(whole.live())
