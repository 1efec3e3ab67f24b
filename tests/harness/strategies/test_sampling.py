"""Drawing tokens: by their shares, by the seed alone, and with all that it allocates in sight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor

from memory_harness.configs.cards import find_card
from memory_harness.configs.schema import RunConfig
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.simulate.trace import Chain, TraceRecorder, canonical
from memory_harness.harness.strategies.compiled import CompiledStrategy
from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.harness.strategies.sampling import GREEDY, Sampler, Sampling, draw, penalised, sample_seed
from memory_harness.harness.train.generate import generate

TINY = RunConfig().with_fields(model="tiny-llama", dtype="float32", quantization="none", gpu="t4")
PROMPTS = ([7, 8, 9, 10], [11, 12, 13, 14, 15, 16], [17, 18])
DRAWN = Sampling(1.3, 0.9, 1.2, (5, 6, 7))


def device(computes: bool = True) -> SimulatedDevice:
    return SimulatedDevice(find_card("t4"), 2**34, computes=computes)


@pytest.fixture(scope="module")
def strategy() -> QLoraStrategy:
    torch.manual_seed(0)
    made = QLoraStrategy(TINY, device())
    with made.device.active():
        made.load()
    return made


def test_tokens_come_up_by_their_shares() -> None:
    generator = torch.Generator().manual_seed(1)
    shares = torch.tensor([0.5, 0.3, 0.2, 0.0]).repeat(6000, 1)
    counts = Counter(draw(shares, [generator] * 6000)[:, 0].tolist())
    assert counts[3] == 0
    for token, share in enumerate((0.5, 0.3, 0.2)):
        assert counts[token] / 6000 == pytest.approx(share, abs=0.03)


def test_top_p_cuts_the_tail_and_a_low_temperature_takes_the_likeliest() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    tokens = {
        settings: {int(Sampler(Sampling(*settings, 1.0, (seed,)), [()], 4, device())(logits)) for seed in range(60)}
        for settings in ((1.0, 1.0), (1.0, 0.7), (0.01, 1.0))
    }
    assert tokens == {(1.0, 1.0): {0, 1, 2, 3}, (1.0, 0.7): {0, 1}, (0.01, 1.0): {0}}


def test_the_penalty_is_that_of_transformers() -> None:
    logits = torch.randn(2, 9, generator=torch.Generator().manual_seed(3))
    ids = torch.tensor([[1, 4], [8, 0]])
    seen = torch.zeros(2, 9, dtype=torch.bool).scatter_(1, ids, True)
    expected = RepetitionPenaltyLogitsProcessor(1.7)(ids, logits)
    assert torch.equal(penalised(logits, seen, 1.7), expected)


def test_a_penalty_keeps_the_greedy_from_repeating() -> None:
    sampler = Sampler(Sampling(repetition_penalty=1e6), [[0]], 5, device())
    logits = torch.tensor([[9.0, 5.0, 4.0, 3.0, 2.0]])
    assert [int(sampler(logits)) for _ in range(4)] == [1, 2, 3, 4]


def test_a_seed_gives_the_same_reply_in_any_batch(strategy: QLoraStrategy) -> None:
    def replies(groups: Sequence[Sequence[int]], seeds: Sequence[int]) -> dict[int, list[int]]:
        found = {}
        for group in groups:
            sampling = Sampling(1.3, 0.9, 1.2, tuple(seeds[i] for i in group))
            rows = generate(strategy, [PROMPTS[i] for i in group], 6, (), sampling)
            found.update({i: ids for i, (ids, _) in zip(group, rows, strict=True)})
        return found

    with strategy.device.active():
        together = replies([(0, 1, 2)], (5, 6, 7))
        assert replies([(2, 0), (1,)], (5, 6, 7)) == together
        assert replies([(0, 1, 2)], (5, 60, 7))[1] != together[1]
    assert strategy.cache is None
    assert strategy.sampler is None


def test_seeds_differ_by_question_sample_and_seed() -> None:
    seeds = {sample_seed(seed, q, n) for seed in (1, 2) for q in ("ক", "খ") for n in (0, 1)}
    assert len(seeds) == 8
    assert sample_seed(1, "ক", 0) == sample_seed(1, "ক", 0) < 2**53


def test_real_and_meta_tensors_allocate_the_same() -> None:
    def events(computes: bool) -> Chain:
        made, chain = QLoraStrategy(TINY, device(computes)), []

        def record(run: Callable[[], object]) -> None:
            recorder = TraceRecorder()
            made.device.tracer.sink = recorder
            run()
            chain.append(recorder.events)

        with made.device.active():
            record(made.load)
            record(lambda: made.prefill(PROMPTS, DRAWN))
            record(made.decode)
            record(made.release)
        return canonical(chain)

    # transformers writes a zero into a slice, for which the meta device, unlike CUDA, makes a tensor of one byte
    real, meta = (
        [sorted(size for _, size, _ in e if size > 1) for e in events(computes)] for computes in (True, False)
    )
    assert real[1:] == meta[1:]


def test_a_replayed_generation_frees_all_it_took_and_sampling_takes_more() -> None:
    inner = QLoraStrategy(TINY, device(False))
    compiled = CompiledStrategy(inner, inner.device)
    peaks = []
    with inner.device.active():
        compiled.load()
        generate(compiled, PROMPTS, 3, (), GREEDY)  # leaves the workspace
        floor = inner.device.stats().allocated_bytes
        for sampling in (GREEDY, DRAWN, DRAWN):
            inner.device.reset_peaks()
            generate(compiled, PROMPTS, 12, (), sampling)
            assert inner.device.stats().allocated_bytes == floor
            peaks.append(inner.device.stats().peak_allocated_bytes)
        num_traced = compiled.num_traced
        generate(compiled, PROMPTS, 12, (), DRAWN)
        assert compiled.num_traced == num_traced
        with compiled.without_adapter():
            generate(compiled, PROMPTS, 12, (), GREEDY)  # runs other operators, so it is recorded anew
        assert compiled.num_traced > num_traced
        assert inner.device.stats().allocated_bytes == floor
    assert peaks[0] < peaks[1] == peaks[2]
