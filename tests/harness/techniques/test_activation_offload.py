"""Offloaded activations: the same bits, and device memory that no longer grows with the number of layers."""

import pytest
import torch

from memory_harness.configs.errors import ConfigError
from memory_harness.configs.validation import validate
from memory_harness.harness.strategies.compiled import CompiledStrategy
from memory_harness.harness.techniques import activation_offload
from tests.harness.techniques.driving import LLAMA_8B, TINY, micro_batch, opened, simulated_peak, uniform_batch

OFFLOADED = TINY.with_fields(offload_activations=True)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"fast_path": "torch"},
        {"fast_path": "torch", "recompute": "0+2"},
        {"fast_path": "torch", "recompute": "1+1"},
        {"fast_path": "torch", "recompute": "0+1"},
    ],
)
@pytest.mark.parametrize(("batch_size", "length", "padding"), [(1, 64, 0), (2, 48, 5)])
def test_loss_and_gradients_are_the_same_bits(batch_size, length, padding, fields):
    batch, config = uniform_batch(batch_size, length, padding=padding), TINY.with_fields(**fields)
    expected_loss, expected = micro_batch(config, batch)
    loss, gradients = micro_batch(config.with_fields(offload_activations=True), batch)
    assert loss == expected_loss
    assert all(torch.equal(a, b) for a, b in zip(gradients, expected, strict=True))


@pytest.fixture
def leaving(monkeypatch):
    """Shapes of the tensors that leave."""
    shapes = []
    leave = activation_offload._Offload._leaving
    monkeypatch.setattr(
        activation_offload._Offload,
        "_leaving",
        lambda self, tensor: (shapes.append(tuple(tensor.shape)), leave(self, tensor))[1],
    )
    return shapes


def test_only_the_layers_inputs_leave(leaving):
    micro_batch(OFFLOADED, uniform_batch(1, 32))
    assert leaving == [(1, 32, 64)] * 2  # hidden size 64, two layers


def test_of_a_layer_whose_block_alone_is_computed_again_all_leaves_but_the_block_and_weights(leaving):
    micro_batch(OFFLOADED.with_fields(fast_path="torch", recompute="0+1"), uniform_batch(1, 32))
    assert (4, 16, 32) in leaving  # keys, as the math kernel has them for each of four heads
    assert (32, 64) in leaving  # the block's input
    assert not {shape for shape in leaving if shape[-1] == 128}  # the block is 128 wide
    assert (8, 64) not in leaving  # an adapter's weights
    assert not {(1, 32, 16), (1, 1, 32, 16)} & set(leaving)  # rotary embeddings, which all layers have


@pytest.mark.slow
def test_the_8b_model_keeps_two_layers_inputs_and_not_32():
    """The first is a leaf of the graph and stays; the last has only begun to leave when it is needed again."""
    config = LLAMA_8B.with_fields(gpu="h100", loss="chunked")
    batch = uniform_batch(1, 2048)
    kept = after_forward(config, batch)
    offloaded = after_forward(config.with_fields(offload_activations=True), batch)
    assert kept - offloaded == 30 * 2048 * 4096 * 2


def after_forward(config, batch):
    strategy, device = opened(config)
    with device.active():
        strategy.load()
        strategy.put(batch, training=True)
        strategy.forward(batch.shape.target_tokens)
        return device.stats().allocated_bytes


def test_nothing_stays_after_the_backward_pass():
    batch = uniform_batch(1, 64)
    config = TINY.with_fields(tensors="fake", dtype="float16")
    held = simulated_peak(config, batch), simulated_peak(config.with_fields(offload_activations=True), batch)
    assert held[0].allocated_bytes == held[1].allocated_bytes


def test_what_has_come_back_is_the_backward_passs_alone_and_comes_again_where_the_graph_stays():
    _, device = opened(OFFLOADED)
    offload, weight = activation_offload._Offload(device), torch.ones(8, requires_grad=True)
    with device.active():
        with offload.of_a_layer():
            result = (2 * weight).exp()
        (saved,) = offload._newest().saved.values()
        for passes in (1, 2):
            result.sum().backward(retain_graph=True)
            assert saved.on_device is None
            assert torch.allclose(weight.grad, passes * 2 * result.detach())


def test_a_backward_pass_that_never_comes_leaves_nothing_behind():
    batch = uniform_batch(1, 64)
    strategy, device = opened(OFFLOADED)
    held = []
    with device.active():
        strategy.load()
        for _ in range(3):
            strategy.put(batch, training=True)
            strategy.forward(batch.shape.target_tokens)
            strategy.graph = None
            held.append(device.stats().allocated_bytes)
    assert held[1] == held[2]


def test_every_step_makes_the_same_allocations():
    strategy, device = opened(OFFLOADED.with_fields(tensors="fake", dtype="float16"))
    compiled = CompiledStrategy(strategy, device)
    with device.active():
        compiled.load()
        for length in (64, 32, 48, 64, 56):
            compiled.put(uniform_batch(1, length), training=True)
            compiled.forward(length - 1)
            compiled.backward()
            compiled.optimizer_step(1e-4)
    assert compiled.num_traced == 1 + 3 + 2


def test_it_needs_gradient_checkpointing():
    with pytest.raises(ConfigError, match="--offload-activations"):
        validate(LLAMA_8B.with_fields(offload_activations=True, gradient_checkpointing=False))
