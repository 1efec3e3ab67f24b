"""Micro-batches as graphs: which are captured, the same training, the same memory traced as replayed."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from memory_harness.configs.models import LINEAR_LAYERS
from memory_harness.configs.step_graphs import reason_against_graphs, takes_graphs
from memory_harness.configs.units import MIB
from memory_harness.harness.strategies.compiled import CompiledStrategy
from memory_harness.harness.techniques.step_graphs import MAX_GRAPHS, MAX_TOKENS, GraphBook, Stage, graph_length
from tests.harness.techniques.driving import TINY, opened, uniform_batch

FAST = TINY.with_fields(fast_path="torch", loss="liger", recompute="none", max_length=256)
GRAPHS = FAST.with_fields(cuda_graphs="auto")
LENGTHS = (64, 40, 61, 64, 100, 128, 128, 64)
"""padded to 64 and 128: run, captured and replayed"""


@given(length=st.integers(1, 10**5))
def test_a_graph_holds_its_batch_and_little_more(length):
    padded = graph_length(length)
    assert length <= padded < length + max(64, length / 8)
    assert graph_length(padded) == padded


def test_a_shape_runs_then_is_captured_then_replayed():
    book = GraphBook(lambda tokens: False)
    stages = [book.take(uniform_batch(1, length))[1] for length in (64, 60, 128, 33, 128)]
    assert stages == [Stage.FIRST, Stage.CAPTURE, Stage.FIRST, Stage.REPLAY, Stage.CAPTURE]
    assert book.forget()
    assert not book.forget()
    assert book.take(uniform_batch(1, 64))[1] is Stage.FIRST


def test_what_is_forbidden_or_long_runs_as_it_is():
    book = GraphBook(lambda tokens: tokens > 1024)
    for length in (1025, MAX_TOKENS, 2 * MAX_TOKENS):
        batch = uniform_batch(1, length)
        assert book.take(batch) == (batch, Stage.ALONE)
    assert book.take(uniform_batch(8, 128))[1] is Stage.FIRST


def test_there_are_never_more_graphs_than_allowed():
    book = GraphBook(lambda tokens: False)
    stages = [book.take(uniform_batch(size, 8))[1] for size in range(1, MAX_GRAPHS + 3)]
    assert stages == [Stage.FIRST] * MAX_GRAPHS + [Stage.ALONE] * 2


def run(config, wrap=lambda strategy, _: strategy):
    """Return each step's loss and norm, and each micro-batch's peaks."""
    torch.manual_seed(0)
    strategy, device = opened(config)
    strategy, steps, peaks = wrap(strategy, device), [], []
    with device.active():
        strategy.load()
        for first, second in zip(LENGTHS[::2], LENGTHS[1::2], strict=True):
            for length in (first, second):
                device.reset_peaks()
                before = device.stats().allocated_bytes
                strategy.put(uniform_batch(1, length, padding=length % 8, prompt=3), training=True)
                strategy.forward(first + second)
                strategy.backward()
                peaks.append(peaks_of(device, before))
            steps.append(strategy.optimizer_step(1e-2))
        strategy.put(uniform_batch(1, 96), training=False)
        strategy.evaluate()
        peaks.append(peaks_of(device, 0))
        strategy.put(uniform_batch(1, 64), training=True)
        strategy.forward(1)
        strategy.backward()
        peaks.append(peaks_of(device, 0))
    return steps, peaks


def peaks_of(device, before):
    stats = device.stats()
    return stats.peak_allocated_bytes - before, stats.peak_reserved_bytes, stats.reserved_bytes


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "fields",
    [
        {},
        pytest.param({"loss": "chunked"}, marks=SLOW),
        pytest.param({"lora_dropout": 0.1}, marks=SLOW),
        pytest.param({"recompute": "0+2", "fast_path": "liger"}, marks=SLOW),
    ],
)
def test_the_training_is_the_same(fields):
    plain, captured = run(FAST.with_fields(**fields))[0], run(GRAPHS.with_fields(**fields))[0]
    rel = 1e-4 if not fields.get("lora_dropout") else 0.1  # dropout draws more where more is padded
    for before, after in zip(plain, captured, strict=True):
        assert after == pytest.approx(before, rel=rel)


def test_a_replayed_run_takes_what_a_traced_one_takes():
    config = GRAPHS.with_fields(tensors="fake", dtype="float16")
    assert run(config, CompiledStrategy)[1] == run(config)[1]


def test_what_is_replayed_allocates_nothing_but_its_pool_stays():
    config = GRAPHS.with_fields(tensors="fake", dtype="float16")
    first, captured, replayed = run(config, CompiledStrategy)[1][:3]
    assert first[0] - captured[0] == 512  # the step's loss, which the first one makes
    assert replayed[0] <= 2048
    assert replayed[1] >= captured[1]


def test_a_step_that_fails_leaves_no_graph():
    strategy, device = opened(GRAPHS)
    with device.active():
        strategy.load()
        for _ in range(3):
            strategy.put(uniform_batch(1, 64), training=True)
            strategy.forward(63)
            strategy.backward()
        assert strategy.staged(uniform_batch(1, 64), training=True)[1] is Stage.REPLAY
        strategy.put(uniform_batch(1, 64), training=True)
        strategy.abandon()
        assert strategy.loss is None
        assert all(not p.grad.any() for p in strategy.trainable())
        assert strategy.staged(uniform_batch(1, 64), training=True)[1] is Stage.FIRST


def test_a_batch_that_copies_to_the_host_is_not_captured():
    strategy, _ = opened(GRAPHS.with_fields(offload_activations=True, recompute="128:0,256:0+1"))
    with strategy.device.active():
        strategy.load()
        stages = [strategy.staged(uniform_batch(1, length), training=True)[1] for length in (64, 192)]
    assert stages == [Stage.FIRST, Stage.ALONE]


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"fast_path": "off"}, "--fast-path"),
        ({"loss": "full"}, "--loss"),
        ({"embeddings_on_host": True}, "--embeddings-on-host"),
        ({"attention": "eager"}, "--attention"),
        ({"num_gpus": 2}, "--num-gpus"),
        ({"model": "mistral-7b"}, None),
    ],
)
def test_what_forbids_graphs_is_told(fields, word):
    config = GRAPHS.with_fields(**fields)
    reason = reason_against_graphs(config)
    assert takes_graphs(config) == (reason is None)
    assert word is None or word in reason


@pytest.mark.gpu
@pytest.mark.parametrize("path", ["torch", "liger"])
@pytest.mark.parametrize("fields", [{}, {"loss": "chunked"}, {"target_modules": LINEAR_LAYERS}, {"lora_dropout": 0.1}])
def test_a_gpu_gives_the_losses_of_the_same_passes_without_graphs(path, fields):
    from memory_harness.harness.devices.cuda import CudaDevice
    from memory_harness.harness.strategies.qlora import QLoraStrategy

    def losses(config):
        torch.manual_seed(0)
        device = CudaDevice(None, None, share_gpu=True)
        strategy, found = QLoraStrategy(config, device), []
        with device.active():
            strategy.load()
            loaded = device.pool_use().private_reserved_bytes
            for number in range(6):
                for length in (64, 128):
                    strategy.put(uniform_batch(2, length, prompt=number), training=True)
                    strategy.forward(2 * 192)
                    strategy.backward()
                found.append(strategy.optimizer_step(1e-3))
            if takes_graphs(config):
                assert strategy.staged(uniform_batch(2, 64), training=True)[1] is Stage.REPLAY
            strategy.put(uniform_batch(2, 96), training=False)
            found.append((strategy.evaluate(), device.pool_use().private_reserved_bytes - loaded))
        return found

    config = FAST.with_fields(dtype="float16", random_weights=True, fast_path=path, **fields)
    *plain, (plain_loss, _) = losses(config)
    *graphs, (graphs_loss, pool_bytes) = losses(config.with_fields(cuda_graphs="auto"))
    assert pool_bytes <= 4 * MIB  # an evaluation gets the memory back, but for what libraries work in
    assert graphs_loss == pytest.approx(plain_loss, rel=5e-3)
    for found, expected in zip(graphs, plain, strict=True):
        assert found == pytest.approx(expected, rel=5e-3)
