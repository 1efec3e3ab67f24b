"""flash_attention_2 without the package: transformers' way through it, its values, and what its kernels allocate."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from memory_harness.configs.cards import find_card
from memory_harness.configs.errors import ConfigError
from memory_harness.configs.units import TIB
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.simulate.flash_attention import _Call, _flash_attn, _flash_attn_varlen, counted_tokens
from memory_harness.harness.simulate.trace import Event, TraceRecorder, fit_size
from memory_harness.harness.strategies.compiled import CompiledStrategy
from memory_harness.harness.strategies.qlora import QLoraStrategy
from tests.harness.simulate.test_tracing import TINY, batch, sizes_only
from tests.harness.techniques.driving import TINY as COMPUTING
from tests.harness.techniques.driving import evaluated, micro_batch, simulated_peak, uniform_batch

FLASH = TINY.with_fields(attention="flash_attention_2", gpu="h200", dtype="bfloat16", max_length=512)
HALF = COMPUTING.with_fields(gpu="h200", dtype="bfloat16")

PADDED = [(1, 512, 500), (2, 256, 320), (2, 384, 700)]
"""batch size, length, and real tokens of batches that a family of traces is recorded at"""


@pytest.mark.parametrize("lengths", [pytest.param((40,), marks=pytest.mark.slow), (40, 64)])
def test_loss_and_gradients_are_those_of_sdpa(lengths):
    padded = batch(lengths, 64)
    flash, sdpa = (micro_batch(HALF.with_fields(attention=name), padded) for name in ("flash_attention_2", "sdpa"))
    torch.testing.assert_close(flash, sdpa, rtol=0.05, atol=0.005)
    losses = [evaluated(HALF.with_fields(attention=name), padded) for name in ("flash_attention_2", "eager", "sdpa")]
    assert losses == pytest.approx(losses[:1] * 3, rel=1e-3)


@pytest.mark.parametrize("options", [_Call(True, None, -1, 0.0), _Call(True, 0.2, 3, 0.0), _Call(False, None, -1, 5.0)])
def test_sequences_end_to_end_give_what_each_gives_alone(options):
    device = SimulatedDevice(find_card("h200"), TIB, computes=True)
    query, key, value = (torch.randn(2, 6, heads, 8) for heads in (4, 2, 2))
    settings = {"softmax_scale": options.scale, "causal": options.causal, "softcap": options.softcap}
    settings["window_size"] = (options.window, options.window)
    dense = partial(_flash_attn, device.tracer, **settings)
    end_to_end = partial(_flash_attn_varlen, device.tracer, **settings, max_seqlen_q=6, max_seqlen_k=6)
    starts = torch.tensor([0, 6, 10], dtype=torch.int32)
    cut = [torch.cat([tensor[0], tensor[1, :4]]) for tensor in (query, key, value)]
    together = end_to_end(*cut, cu_seqlens_q=starts, cu_seqlens_k=starts)
    alone = [dense(query[:1], key[:1], value[:1])[0], dense(query[1:, :4], key[1:, :4], value[1:, :4])[0]]
    torch.testing.assert_close(together, torch.cat(alone))
    if options.causal and options.window < 0:
        heads_first = [tensor.transpose(1, 2) for tensor in (query, key, value)]
        expected = torch.nn.functional.scaled_dot_product_attention(*heads_first, is_causal=True, enable_gqa=True)
        torch.testing.assert_close(dense(query, key, value), expected.transpose(1, 2))


def allocated(call, shapes):
    """Return the sizes that a forward pass and its backward pass allocate on the card."""
    device = SimulatedDevice(find_card("h200"), TIB, computes=False)
    with device.active():
        inputs = [torch.empty(shape, dtype=torch.bfloat16, device="meta", requires_grad=True) for shape in shapes]
        forward = device.tracer.sink = TraceRecorder()
        out = call(device.tracer, *inputs)
        backward = device.tracer.sink = TraceRecorder()
        out.backward(torch.empty_like(out))
    return [[size for _, size, _ in recorder.events if size > 0] for recorder in (forward, backward)]


def ragged(tracer, *inputs):
    starts = torch.empty(3, dtype=torch.int32, device="meta")
    return _flash_attn_varlen(tracer, *inputs, starts, starts, 200, 200, causal=True)


def test_kernels_allocate_what_the_package_does():
    forward, backward = allocated(_flash_attn, [(2, 200, 8, 64), (2, 200, 2, 64), (2, 200, 2, 64)])
    queries, keys, rows = 2 * 200 * 8, 2 * 200 * 2, 2 * 256 * 8
    assert forward == [queries * 64 * 2, queries * 4, 16]
    gradients = [queries * 64 * 2, keys * 64 * 2, keys * 64 * 2]
    assert backward == [queries * 64 * 2, *gradients, rows * 4, rows * 64 * 4, *[queries * 64 * 2] * 2]
    forward, backward = allocated(ragged, [(300, 8, 64), (300, 2, 64), (300, 2, 64)])
    queries, keys, rows = 300 * 8, 300 * 2, (300 + 2 * 128) * 8
    assert forward == [12, queries * 64 * 2, queries * 4, 16]
    gradients = [queries * 64 * 2, keys * 64 * 2, keys * 64 * 2]
    assert backward == [queries * 64 * 2, *gradients, rows * 4, rows * 64 * 4, *[queries * 64 * 2] * 2]


def test_a_head_dimension_that_the_package_refuses_is_refused():
    device = SimulatedDevice(find_card("h200"), TIB, computes=False)
    query = torch.empty(1, 4, 1, 320, device="meta")
    with pytest.raises(RuntimeError, match=r"at most 256 \(found 320\)"):
        _flash_attn(device.tracer, query, query, query)


def recorded(attention: str, *, computes: bool) -> list[list[Event]]:
    device = SimulatedDevice(find_card("h200"), TIB, computes=computes)
    strategy = QLoraStrategy(FLASH.with_fields(attention=attention), device)
    phases: list[list[Event]] = []

    def record(run):
        recorder = device.tracer.sink = TraceRecorder()
        run()
        phases.append(recorder.events)

    with device.active():
        strategy.load()
        for padded in (batch((64, 128), 128), batch((64,), 64)):
            strategy.put(padded, training=True)
            record(lambda: strategy.forward(10))
            record(strategy.backward)
        strategy.put(batch((64, 128), 128), training=False)
        record(strategy.evaluate)
        record(lambda: strategy.prefill([[5] * 9]))
        record(strategy.decode)
    return phases


@pytest.mark.parametrize("attention", ["flash_attention_2", "eager"])
def test_real_and_meta_tensors_give_the_same_events(attention):
    real, meta = recorded(attention, computes=True), recorded(attention, computes=False)
    for phase_of_real, phase_of_meta in zip(real, meta, strict=True):
        assert sizes_of(phase_of_real) == sizes_of(phase_of_meta)


def sizes_of(phase: list[Event]) -> list[int]:
    return [size for _, size in sizes_only(phase)]


def of_tokens(batch_size: int, length: int, real: int):
    """Return a batch with so many real tokens."""
    others = [(real - length) // (batch_size - 1)] * (batch_size - 1)
    others[0] += real - length - sum(others)
    return batch((length, *others), length)


def run(shapes) -> tuple[CompiledStrategy, SimulatedDevice]:
    device = SimulatedDevice(find_card("h200"), TIB, computes=False)
    strategy = CompiledStrategy(QLoraStrategy(FLASH, device), device)
    with device.active():
        strategy.load()
        for shape in shapes:
            strategy.put(of_tokens(*shape), training=True)
            strategy.forward(10)
            strategy.backward()
            strategy.optimizer_step(1e-4)
            device.reset_peaks()
    return strategy, device


@pytest.mark.parametrize(
    "other",
    [
        (3, 320, 800),
        *(pytest.param(shape, marks=pytest.mark.slow) for shape in ((2, 384, 450), (2, 512, 700), (2, 320, 630))),
    ],
)
def test_a_number_of_real_tokens_that_was_derived_takes_what_running_it_takes(other):
    known = [(2, 256, 320), (2, 256, 320), (3, 384, 700), (2, 320, 400), (4, 192, 500)]
    derived, device = run([*known, other])
    number = derived.num_traced
    with device.active():
        device.reset_peaks()
        derived.put(of_tokens(*other), training=True)
        derived.forward(10)
        derived.backward()
    direct, other_device = run([other, other])
    with other_device.active():
        other_device.reset_peaks()
        direct.put(of_tokens(*other), training=True)
        direct.forward(10)
        direct.backward()
    assert derived.num_traced == number, "the last step is a replay"
    assert device.stats().peak_allocated_bytes == other_device.stats().peak_allocated_bytes


def test_padding_costs_attention_nothing():
    config = FLASH.with_fields(max_length=2048)
    peaks = [simulated_peak(config, uniform_batch(2, 2048, padding=padding)) for padding in (64, 1024)]
    assert peaks[1].peak_allocated_bytes < peaks[0].peak_allocated_bytes


def test_eager_attention_stores_all_scores():
    config, padded = FLASH.with_fields(max_length=1024), uniform_batch(2, 1024, padding=64)
    peaks = [simulated_peak(config.with_fields(attention=name), padded) for name in ("eager", "sdpa")]
    heads = 4
    scores = 2 * heads * 1024 * 1024 * 4  # sequences x heads x pairs x float32, which softmax writes
    assert peaks[0].peak_allocated_bytes - peaks[1].peak_allocated_bytes > scores


def test_real_tokens_are_counted_in_steps_and_never_above_the_padded():
    assert [counted_tokens(real, 200) for real in (1, 64, 65, 199)] == [64, 64, 128, 200]


@pytest.mark.parametrize("form", [lambda b, _, n: n, lambda b, _, n: n + 128 * b, lambda b, _, n: 4 * (b + 1)])
def test_a_size_that_follows_real_tokens_is_recovered(form):
    fitted = fit_size(PADDED, [16 * form(*shape) for shape in PADDED])
    assert fitted is not None
    assert fitted((4, 640, 1111)) == 16 * form(4, 640, 1111)


def test_prompts_of_different_lengths_are_one_line():
    strategy, device = run([(2, 256, 320)])
    with device.active(), pytest.raises(ConfigError, match=r"^--generate-batch-size 2: .*\(allowed with it: 1\)$"):
        strategy.prefill([[1, 2], [3]])


def test_pytorchs_own_flash_kernel_is_refused_for_batches_with_padding():
    device = SimulatedDevice(find_card("h200"), TIB, computes=False, attention="flash")
    strategy = QLoraStrategy(FLASH.with_fields(attention="flash"), device)
    with device.active():
        strategy.load()
        strategy.put(batch((64, 64), 64), training=True)
        with pytest.raises(ConfigError, match=r"^--attention flash: .*flash_attention_2"):
            strategy.put(batch((64, 32), 64), training=True)
