"""The tracer and the lowerings: the same events for real and for meta tensors, and those of CUDA's kernels."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType

import pytest
import torch

from memory_harness.configs.cards import find_card
from memory_harness.configs.models import find_model
from memory_harness.configs.schema import RunConfig
from memory_harness.harness.data.batching import Batch, Example
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.log.records import BatchShape
from memory_harness.harness.simulate.lowering import AUTOGRAD_WORKSPACE, MAIN_WORKSPACE
from memory_harness.harness.simulate.trace import ENSURE, FREE, Chain, Event, TraceRecorder, canonical
from memory_harness.harness.simulate.tracer import source_lines
from memory_harness.harness.strategies.qlora import QLoraStrategy

TINY = RunConfig().with_fields(model="tiny-llama", dtype="float16", kbit_upcast=True, lora_dropout=0.05)


def batch(lengths: tuple[int, ...], padded_length: int) -> Batch:
    examples = tuple(Example(length, 4) for length in lengths)
    targets = sum(example.num_target_tokens for example in examples)
    return Batch(BatchShape(len(lengths), padded_length, lengths, targets), examples)


def record_run(config: RunConfig, *, computes: bool, batches: list[Batch], gpu: str = "t4") -> Chain:
    """Return the events of load, two micro-batches each, an optimizer step, evaluation and three decoded tokens."""
    device = SimulatedDevice(find_card(gpu), 2**34, computes=computes)
    strategy = QLoraStrategy(config, device)
    chain: Chain = []

    def record(run: Callable[[], object]) -> None:
        recorder = TraceRecorder()
        device.tracer.sink = recorder
        run()
        chain.append(recorder.events)

    with device.active():
        record(strategy.load)
        for _ in range(2):
            for each in batches:
                record(lambda each=each: strategy.put(each, training=True))  # type: ignore[misc]
                record(lambda: strategy.forward(10))
                record(strategy.backward)
            record(lambda: strategy.optimizer_step(1e-4))
        record(lambda: strategy.put(batches[0], training=False))
        record(strategy.evaluate)
        record(lambda: strategy.prefill([[5] * 9, [6] * 12]))
        record(strategy.decode)
        record(strategy.decode)
        record(strategy.release)
    return canonical(chain)


def sizes_only(phase: list[Event]) -> list[tuple[object, int]]:
    """Return (key, size) of each event, frees that follow one another sorted: their order leaves no trace in memory."""
    frees_together = itertools.groupby(((key, size) for key, size, _ in phase), key=lambda event: event[1] == FREE)
    return [e for is_free, run in frees_together for e in (sorted(run, key=repr) if is_free else run)]


@pytest.mark.parametrize("gpu", ["t4", "h200"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_real_and_meta_tensors_give_the_same_events(gpu: str, dtype: str) -> None:
    config = TINY.with_fields(dtype=dtype, kbit_upcast=dtype == "float16")
    batches = [batch((20, 32), 32), batch((24, 24), 24)]
    real, meta = (record_run(config, computes=c, batches=batches, gpu=gpu) for c in (True, False))
    # `torch.tensor(list, device="meta")` is seen at its first use only, so loading has the same events in another order
    assert sorted(size for _, size, _ in real[0]) == sorted(size for _, size, _ in meta[0])
    for phase_of_real, phase_of_meta in zip(real[1:], meta[1:], strict=True):
        assert sizes_only(phase_of_real) == sizes_only(phase_of_meta)


def test_every_allocation_is_freed_once_and_what_a_step_leaves_is_constant() -> None:
    chain = record_run(TINY, computes=False, batches=[batch((32,), 32)])
    live: set[object] = set()
    after_phase = []
    for phase in chain:
        for key, size, _ in phase:
            if size == FREE:
                assert key in live, "freed without being allocated"
                live.remove(key)
            elif size >= 0:
                assert key not in live
                live.add(key)
        after_phase.append(len(live))
    first_step_end, second_step_end = 4, 8  # phases: load, then put, forward, backward, optimizer twice
    assert after_phase[first_step_end] == after_phase[second_step_end] == after_phase[-1]


def test_what_checkpointing_computes_again_takes_new_memory() -> None:
    chain = record_run(TINY.with_fields(kbit_upcast=False), computes=False, batches=[batch((32,), 32)])
    forward, backward = (
        Counter(line for _, size, site in phase if size >= 0 for code, line in site[:1] if _is_layer(code))  # type: ignore[index]
        for phase in chain[2:4]
    )
    attention_sum, layer_sum = sorted(forward)
    assert forward[attention_sum] == forward[layer_sum] == find_model("tiny-llama").values["num_hidden_layers"]
    assert backward == {attention_sum: forward[attention_sum]}


def _is_layer(code: CodeType) -> bool:
    return code.co_qualname == "LlamaDecoderLayer.forward"


@contextmanager
def recording(*, computes: bool = False, gpu: str = "t4") -> Iterator[tuple[SimulatedDevice, list[Event]]]:
    device = SimulatedDevice(find_card(gpu), 2**34, computes=computes)
    with device.active():
        recorder = TraceRecorder()
        device.tracer.sink = recorder
        yield device, recorder.events


def test_views_and_in_place_operators_allocate_nothing() -> None:
    with recording() as (device, events):
        x = torch.empty(4, 8, device=device.torch_device)
        y = x.view(8, 4).t()[1:]
        y.add_(1)
        assert [size for _, size, _ in events] == [4 * 8 * 4]
        del x
        assert len(events) == 1, "a view keeps the storage"
        del y
        assert events[-1][1] == FREE


def test_an_allocation_knows_the_line_that_asked_for_it() -> None:
    with recording() as (device, events):
        torch.empty(3, device=device.torch_device)
    _, _, site = events[0]
    described = str(source_lines(site)[0])  # type: ignore[index]
    assert "test_tracing.py" in described
    assert "test_an_allocation_knows_the_line_that_asked_for_it" in described


def test_matrix_products_take_a_workspace_for_the_main_and_one_for_the_autograd_thread() -> None:
    with recording() as (device, events):
        weight = torch.empty(4, 4, device=device.torch_device, requires_grad=True)
        (weight @ weight).sum().backward()
    ensured = {key for key, size, _ in events if size == ENSURE}
    assert ensured == {MAIN_WORKSPACE, AUTOGRAD_WORKSPACE}


def test_host_scalars_are_not_device_memory() -> None:
    with recording(computes=True) as (_, events):
        torch.tensor(1.0).item()
        assert events == []


def test_reading_a_value_that_does_not_exist_fails_unless_it_is_assumed() -> None:
    with recording() as (device, _):
        x = torch.ones(1, device=device.torch_device)
        with pytest.raises(RuntimeError):
            x.item()
        with device.assuming(3.0):
            assert x.item() == 3.0


def attention_events(gpu: str, *, masked: bool, grouped: bool, length: int = 64) -> list[int]:
    """Return the sizes of what one attention call allocates: 4 query heads of 32, float16."""
    with recording(gpu=gpu) as (device, events):
        make = lambda heads: torch.empty(1, heads, length, 32, dtype=torch.float16, device=device.torch_device)  # noqa: E731
        query, key, value = make(4), make(2 if grouped else 4), make(2 if grouped else 4)
        mask = torch.empty(1, 1, length, length, dtype=torch.bool, device=device.torch_device) if masked else None
        del events[:]
        torch.nn.functional.scaled_dot_product_attention(
            query, key, value, mask, is_causal=not masked, enable_gqa=grouped
        )
        return [size for _, size, _ in events if size >= 0]


def test_grouped_heads_fall_back_to_quadratic_scores_on_a_t4_only() -> None:
    length = 64
    scores = 4 * length * length * 4  # heads x L x L in float32
    assert max(attention_events("t4", masked=False, grouped=True)) >= scores
    assert max(attention_events("h200", masked=False, grouped=True)) < scores
    assert max(attention_events("t4", masked=False, grouped=False)) < scores


def test_a_boolean_mask_becomes_a_bias_of_two_bytes() -> None:
    assert 64 * 64 * 2 in attention_events("t4", masked=True, grouped=False)


def test_attention_computes_what_pytorch_computes() -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 4, 16, 8, requires_grad=True) for _ in range(3))
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    expected_grads = torch.autograd.grad(expected.square().sum(), (query, key, value))
    with recording(computes=True):
        got = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        got_grads = torch.autograd.grad(got.square().sum(), (query, key, value))
    torch.testing.assert_close(got, expected)
    for grad, wanted in zip(got_grads, expected_grads, strict=True):
        torch.testing.assert_close(grad, wanted)


def pads(rows: list[torch.Tensor]) -> torch.Tensor:
    rows = [torch.cat([row, torch.zeros(8 - len(row))]) for row in rows]
    batch = torch.stack(rows)
    return batch * 2


def joins(rows: list[torch.Tensor]) -> torch.Tensor:
    batch = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return batch.double()


@pytest.mark.parametrize(("make", "line"), [(pads, 1), (joins, 2)])
def test_a_batch_has_the_line_of_its_rows_where_these_are_as_long_and_as_wide(make, line):
    device = SimulatedDevice(find_card("t4"), 2**34, computes=True, adopts=True, lowered=False)
    with device.active():
        device.note_origins(on=True)
        made = make([torch.ones(3), torch.ones(5)])
        origin = device.origin_of(made)
    assert origin is not None
    assert origin.line == make.__code__.co_firstlineno + line
