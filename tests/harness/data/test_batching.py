"""Every sample once, caps and effective batches kept, the same batches again for the same seed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_harness.configs.schema import RunConfig
from memory_harness.harness.data.batching import Batch, Example, eval_batches, halves, packed_batch, train_steps

MODES = ("padded", "dynamic", "bucketed")


def make_examples(lengths: list[int], max_length: int) -> list[Example]:
    """Examples told apart by their prompt length, so that a batch shows which ones it holds."""
    lengths = [min(n, max_length) for n in lengths]
    return [Example(n, min(i, n - 1), tuple(range(n))) for i, n in enumerate(lengths)]


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[Example], RunConfig]:
    max_length = draw(st.sampled_from([64, 100, 256]))
    config = RunConfig().with_fields(
        max_length=max_length,
        batching=draw(st.sampled_from(MODES)),
        max_batch_tokens=draw(st.none() | st.integers(32, 1024)),
        pad_to_multiple_of=draw(st.sampled_from([1, 8, 64])),
        train_batch_size=draw(st.integers(1, 5)),
        gradient_accumulation=draw(st.integers(1, 5)),
        eval_batch_size=draw(st.integers(1, 9)),
        seed=draw(st.integers(0, 5)),
    )
    return make_examples(draw(st.lists(st.integers(1, 300), max_size=90)), max_length), config


def check_shapes(batches: list[Batch], config: RunConfig) -> None:
    for batch in batches:
        shape, longest = batch.shape, max(batch.shape.lengths)
        assert shape.lengths == tuple(e.num_tokens for e in batch.examples)
        assert shape.batch_size == len(batch.examples)
        assert longest <= shape.padded_length <= config.data.max_length
        assert batch.has_padding == (sum(shape.lengths) < shape.padded_tokens)
        if config.data.batching == "padded":
            assert shape.padded_length == config.data.max_length
        else:
            assert shape.padded_length - longest < config.data.pad_to_multiple_of


def check_cap(batches: list[Batch], default_size: int, config: RunConfig) -> None:
    cap = config.data.max_batch_tokens or default_size * config.data.max_length
    assert all(b.shape.padded_tokens <= cap or b.shape.batch_size == 1 for b in batches)


@given(cases(), st.integers(0, 3))
def test_training_uses_each_sample_once_in_steps_of_the_effective_batch(
    case: tuple[list[Example], RunConfig], epoch: int
) -> None:
    examples, config = case
    steps = train_steps(examples, config, epoch)
    micro_batches = [batch for step in steps for batch in step]
    assert Counter(e for b in micro_batches for e in b.examples) == Counter(examples)
    step_size = config.train.train_batch_size * config.train.gradient_accumulation
    sizes = [sum(b.shape.batch_size for b in step) for step in steps]
    assert all(size == step_size for size in sizes[:-1])
    assert all(0 < size <= step_size for size in sizes[-1:])
    check_shapes(micro_batches, config)
    if config.data.batching == "bucketed":
        check_cap(micro_batches, config.train.train_batch_size, config)
    else:
        assert all(b.shape.batch_size <= config.train.train_batch_size for b in micro_batches)


@given(cases())
def test_evaluation_uses_each_sample_once_within_its_batch_size(case: tuple[list[Example], RunConfig]) -> None:
    examples, config = case
    batches = eval_batches(examples, config)
    in_order = [e for b in batches for e in b.examples]
    assert Counter(in_order) == Counter(examples)
    assert all(b.shape.batch_size <= config.eval.eval_batch_size for b in batches)
    check_shapes(batches, config)
    if config.data.batching == "bucketed":
        check_cap(batches, config.eval.eval_batch_size, config)
        assert [e.num_tokens for e in in_order] == sorted((e.num_tokens for e in examples), reverse=True)
    else:
        assert in_order == examples


@given(cases(), st.integers(0, 3))
def test_the_same_seed_and_epoch_give_the_same_steps(case: tuple[list[Example], RunConfig], epoch: int) -> None:
    examples, config = case
    assert train_steps(examples, config, epoch) == train_steps(examples, config, epoch)
    assert eval_batches(examples, config) == eval_batches(examples, config)


@pytest.mark.parametrize("mode", MODES)
def test_each_epoch_and_each_seed_has_its_own_order(mode: str) -> None:
    config = RunConfig().with_fields(batching=mode)
    examples = make_examples(list(range(10, 210)), 2048)
    first = train_steps(examples, config, 0)
    assert first != train_steps(examples, config, 1)
    assert first != train_steps(examples, config.with_fields(seed=7), 0)


def test_padded_and_dynamic_hold_the_same_samples_in_the_same_order() -> None:
    examples = make_examples(list(range(1, 100)), 2048)
    config = RunConfig().with_fields(train_batch_size=2)
    orders = [
        [[b.examples for b in step] for step in train_steps(examples, config.with_fields(batching=mode), 0)]
        for mode in ("padded", "dynamic")
    ]
    assert orders[0] == orders[1]


def test_bucketed_wastes_less_padding_and_packs_short_samples_together() -> None:
    lengths = np.random.default_rng(0).integers(20, 1000, 640).tolist()
    examples = make_examples(lengths, 2048)
    config = RunConfig().with_fields(train_batch_size=2, gradient_accumulation=4, pad_to_multiple_of=8)
    padded = {
        mode: sum(b.shape.padded_tokens for s in train_steps(examples, config.with_fields(batching=mode), 0) for b in s)
        for mode in MODES
    }
    assert padded["bucketed"] < 1.1 * sum(lengths) < padded["dynamic"] < padded["padded"]
    bucketed = train_steps(examples, config, 0)
    assert max(b.shape.batch_size for step in bucketed for b in step) > config.train.train_batch_size


def test_bucketed_steps_come_in_random_order_of_length() -> None:
    examples = make_examples(list(range(1, 513)), 2048)
    steps = train_steps(examples, RunConfig(), 0)
    longest = [max(b.shape.padded_length for b in step) for step in steps]
    assert longest != sorted(longest)
    assert longest != sorted(longest, reverse=True)
    assert abs(np.corrcoef(np.arange(len(longest)), longest)[0, 1]) < 0.2


def test_a_sample_above_the_cap_is_alone() -> None:
    config = RunConfig().with_fields(max_batch_tokens=128, gradient_accumulation=4)
    (step,) = train_steps(make_examples([500, 60, 60, 500], 2048), config, 0)
    assert sorted(b.shape.batch_size for b in step) == [1, 1, 2]


def test_arrays_pad_right_and_mask_prompt_and_padding() -> None:
    config = RunConfig().with_fields(batching="dynamic", pad_to_multiple_of=4, eval_batch_size=2)
    (batch,) = eval_batches([Example(3, 1, (7, 8, 9)), Example(5, 2, (1, 2, 3, 4, 5))], config)
    arrays = batch.arrays(pad_id=99, vocab_size=100)
    assert arrays["input_ids"].tolist() == [[7, 8, 9, 99, 99, 99, 99, 99], [1, 2, 3, 4, 5, 99, 99, 99]]
    assert arrays["attention_mask"].tolist() == [[1, 1, 1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0, 0, 0]]
    assert arrays["labels"].tolist() == [[-100, 8, 9, *[-100] * 5], [-100, -100, 3, 4, 5, *[-100] * 3]]
    assert {a.dtype for a in arrays.values()} == {np.dtype(np.int64)}


@given(cases())
def test_target_tokens_are_the_labels_left_after_the_causal_shift(case: tuple[list[Example], RunConfig]) -> None:
    for batch in eval_batches(*case):
        labels = batch.arrays(pad_id=0, vocab_size=300)["labels"]
        assert (labels[:, 1:] != -100).sum() == batch.shape.target_tokens


def test_estimated_lengths_get_seeded_random_ids_below_the_vocabulary() -> None:
    (batch,) = eval_batches([Example(50, 10), Example(40, 10)], RunConfig())
    ids = batch.arrays(pad_id=8, vocab_size=8, seed=3)["input_ids"]
    real = batch.arrays(pad_id=8, vocab_size=8, seed=3)["attention_mask"] == 1
    assert (ids[real] < 8).all()
    assert (ids[~real] == 8).all()
    assert (ids == batch.arrays(pad_id=8, vocab_size=8, seed=3)["input_ids"]).all()
    assert (ids != batch.arrays(pad_id=8, vocab_size=8, seed=4)["input_ids"]).any()


@given(cases(), st.integers(2, 4))
def test_several_gpus_take_the_same_steps_in_even_shares(case: tuple[list[Example], RunConfig], num_gpus: int) -> None:
    examples, config = case
    together = train_steps(examples, config.with_fields(num_gpus=num_gpus), 1)
    for step, alone in zip(together, train_steps(examples, config, 1), strict=True):
        assert Counter(e for b in step for e in b.examples) == Counter(e for b in alone for e in b.examples)
        tokens = [batch.shape.padded_tokens for batch in step]
        assert tokens == sorted(tokens, reverse=True)
        assert max(tokens) <= max(batch.shape.padded_tokens for batch in alone)
        assert len(step) % num_gpus == 0 or all(len(batch.examples) == 1 for batch in step)
        check_shapes(list(step), config)


@given(cases(), st.integers(0, 3))
def test_packed_steps_hold_the_samples_of_dynamic_ones_under_the_cap(
    case: tuple[list[Example], RunConfig], epoch: int
) -> None:
    examples, config = case
    cap = max(config.data.max_batch_tokens or 0, config.data.max_length)
    config = config.with_fields(batching="packed", max_batch_tokens=cap)
    steps = train_steps(examples, config, epoch)
    dynamic = train_steps(examples, config.with_fields(batching="dynamic", max_batch_tokens=None), epoch)
    assert [Counter(e for b in step for e in b.examples) for step in steps] == [
        Counter(e for b in step for e in b.examples) for step in dynamic
    ]
    for batch in (batch for step in steps for batch in step):
        shape = batch.shape
        assert shape.lengths == tuple(e.num_tokens for e in batch.examples)
        assert sum(shape.lengths) <= shape.padded_tokens <= cap
        assert shape.padded_tokens - sum(shape.lengths) < config.data.pad_to_multiple_of
        assert not batch.has_padding
    for step in steps:  # no two that would go into one
        rooms = sorted(cap - sum(batch.shape.lengths) for batch in step)
        assert len(step) == 1 or rooms[-1] + rooms[-2] < cap
    assert steps == train_steps(examples, config, epoch)


def test_the_samples_of_a_packed_batch_lie_end_to_end() -> None:
    own = [Example(3, 1, (5, 6, 7)), Example(2, 0, (8, 9)), Example(1, 0, (4,))]
    batch = packed_batch(own, 8)
    arrays = {name: values[0].tolist() for name, values in batch.arrays(0, 10).items()}
    assert arrays == {
        "input_ids": [5, 6, 7, 8, 9, 4, 0, 0],
        "position_ids": [0, 1, 2, 0, 1, 0, 0, 1],
        "labels": [-100, 6, 7, -100, 9, -100, -100, -100],
    }
    assert batch.starts.tolist() == [0, 3, 5, 6, 8]
    assert batch.shape.target_tokens == sum(label != -100 for label in arrays["labels"])


def test_a_packed_batch_is_halved_into_packed_ones() -> None:
    config = RunConfig().with_fields(batching="packed", pad_to_multiple_of=8)
    first, second = halves(packed_batch(make_examples([30, 20, 9], 64), 64), config)
    assert (first.is_packed, first.shape.lengths, first.shape.padded_length) == (True, (30, 20), 56)
    assert (second.is_packed, second.shape.lengths, second.shape.padded_length) == (True, (9,), 16)
    assert halves(second, config) == [second]


def test_given_batches_are_packed_too() -> None:
    ((batch,),) = train_steps([], RunConfig().with_fields(batching="packed", batches="3x100"), 0)
    assert (batch.shape.batch_size, batch.shape.padded_length, batch.shape.lengths) == (1, 300, (100,) * 3)
