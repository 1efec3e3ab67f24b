"""Layers that repeat: replayed, a script's memory goes as it does when each layer runs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any
from unittest.mock import patch

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch.func import functional_call
from transformers import AutoModelForCausalLM, LlamaConfig
from transformers.models.llama.modeling_llama import LlamaMLP

from memory_harness.configs.cards import find_card
from memory_harness.harness.devices.dry_run import DryRunDevice
from memory_harness.harness.log.errors import DeviceOutOfMemory
from memory_harness.harness.log.records import MemoryStats
from memory_harness.harness.simulate import layer_kinds
from memory_harness.harness.simulate.layer_replay import CannotReplay

NUM_LAYERS = 6
SHAPE = (2, 64)

Script = Callable[[DryRunDevice, list[MemoryStats]], Any]


def llama(**fields: Any) -> Any:
    config = LlamaConfig(
        vocab_size=512, hidden_size=128, intermediate_size=256, num_hidden_layers=NUM_LAYERS, num_attention_heads=4,
        num_key_value_heads=2, **fields,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config).cuda()


def loss_of(model: Any, shape: tuple[int, int] = SHAPE, **options: Any) -> torch.Tensor:
    ids = torch.ones(shape, dtype=torch.int64, device="cuda")
    return model(input_ids=ids, labels=ids, **{"use_cache": False} | options).loss


def note(device: DryRunDevice, noted: list[MemoryStats]) -> None:
    noted.append(device.stats())
    device.reset_peaks()


def plain_steps(device: DryRunDevice, noted: list[MemoryStats]) -> None:
    model = llama()
    optimizer = torch.optim.AdamW(model.parameters())
    for length in (64, 64, 64, 80, 80):
        loss_of(model, (2, length)).backward()
        note(device, noted)
        optimizer.step()
        optimizer.zero_grad()
        note(device, noted)


def accumulated(device: DryRunDevice, noted: list[MemoryStats]) -> None:
    model = llama()
    for _ in range(6):
        with torch.autocast("cuda", dtype=torch.float16):
            loss = loss_of(model)
        loss.backward()
        note(device, noted)


def checkpointed(device: DryRunDevice, noted: list[MemoryStats], **how: Any) -> None:
    model = llama()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=how)
    model.enable_input_require_grads()
    model.train()
    for _ in range(3):
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = loss_of(model)
        loss.backward()
        note(device, noted)


def frozen_below(device: DryRunDevice, noted: list[MemoryStats]) -> None:
    """Only the upper layers learn: no argument of the lowest of these wants a gradient."""
    model = llama()
    for parameter in [*model.model.embed_tokens.parameters(), *model.model.layers[:2].parameters()]:
        parameter.requires_grad = False
    for _ in range(3):
        loss_of(model).backward()
        note(device, noted)


def graphs_that_go(device: DryRunDevice, noted: list[MemoryStats]) -> None:
    """Losses without a backward pass, two of them at once, and a graph that is gone through twice."""
    model = llama()
    for _ in range(3):
        losses = [loss_of(model), loss_of(model)]
        note(device, noted)
        losses[0].backward(retain_graph=True)
        note(device, noted)
        losses[0].backward()
        note(device, noted)
        del losses
        note(device, noted)


def evaluation(device: DryRunDevice, noted: list[MemoryStats]) -> None:
    model = llama().eval()
    for _ in range(3):
        with torch.no_grad():
            loss_of(model)
        note(device, noted)
        with torch.inference_mode():
            loss_of(model)
        note(device, noted)


def with_a_cache(device: DryRunDevice, noted: list[MemoryStats]) -> None:
    """As transformers' models have one by default, in training too."""
    model = llama()
    for _ in range(3):
        ids = torch.ones(SHAPE, dtype=torch.int64, device="cuda")
        output = model(input_ids=ids, labels=ids)
        note(device, noted)
        output.loss.backward()
        note(device, noted)
        del output
        note(device, noted)


def generation(device: DryRunDevice, noted: list[MemoryStats]) -> None:
    model = llama().eval()
    ids = torch.ones((2, 8), dtype=torch.int64, device="cuda")
    for _ in range(2):
        cache = None
        with torch.no_grad():
            for _ in range(5):
                output = model(input_ids=ids if cache is None else ids[:, :1], past_key_values=cache, use_cache=True)
                cache = output.past_key_values
                del output
                note(device, noted)
        assert cache.get_seq_length() == 12
        assert len({(layer.keys.shape, layer.values.dtype) for layer in cache.layers}) == 1
        model.generate(input_ids=ids, max_new_tokens=4, do_sample=False)
        note(device, noted)


def dispatched(device: DryRunDevice, noted: list[MemoryStats]) -> None:
    """As `device_map={"": 0}` leaves a model: with hooks that move what is on the card already."""
    model = llama()
    for module in model.modules():
        add_hook_to_module(module, AlignDevicesHook(execution_device=0, io_same_device=module is model))
    for _ in range(4):
        loss_of(model).backward()
        note(device, noted)


def hand_written_loop(device: DryRunDevice, noted: list[MemoryStats]) -> None:
    """Gradients that the script keeps, and one that it gives."""
    layer = torch.nn.TransformerEncoderLayer(64, 4, 256, batch_first=True)
    model = torch.nn.TransformerEncoder(layer, 6, enable_nested_tensor=False).cuda()
    kept: list[Any] = []
    for step in range(4):
        hidden = torch.randn(4, 64, 64, device="cuda")
        for layer in model.layers:
            hidden = layer(hidden)
            hidden.register_hook(kept.append)
        hidden.backward(torch.ones_like(hidden))
        note(device, noted)
        if step % 2:
            kept.clear()
        note(device, noted)


def model_with_a_given_gradient(device: DryRunDevice, noted: list[MemoryStats]) -> None:
    layer = torch.nn.TransformerEncoderLayer(64, 4, 256, batch_first=True)
    model = torch.nn.TransformerEncoder(layer, 6, enable_nested_tensor=False).cuda()
    for _ in range(4):
        hidden = model(torch.randn(4, 64, 64, device="cuda"))
        gradient = torch.ones_like(hidden)
        hidden.backward(gradient)
        note(device, noted)
        del hidden
        note(device, noted)
        del gradient


def attention_that_changes(device: DryRunDevice, noted: list[MemoryStats]) -> None:
    model = llama()
    for step in range(6):
        model.config._attn_implementation = "sdpa" if step < 3 else "eager"
        loss_of(model).backward()
        note(device, noted)


def kept_losses_of_models_that_go(device: DryRunDevice, noted: list[MemoryStats]) -> None:
    losses = []
    for _ in range(2):
        model = llama()
        model.model.requires_grad_(False)
        for layer in model.model.layers:
            layer.self_attn.q_proj.weight.requires_grad_(True)
        for _ in range(3):
            losses.append(loss_of(model))
            losses[-1].backward()
            note(device, noted)
        del model, layer
        note(device, noted)


def backward_within_autocast(device: DryRunDevice, noted: list[MemoryStats]) -> None:
    model = llama()
    for _ in range(3):
        with torch.autocast("cuda", dtype=torch.float16):
            loss_of(model).backward()
        note(device, noted)


def run(script: Script, *, replays_layers: bool, budget_bytes: int = 2**30) -> tuple[list[MemoryStats], DryRunDevice]:
    device = DryRunDevice(find_card("t4"), budget_bytes)
    device.replays_layers = replays_layers
    noted: list[MemoryStats] = []
    with device.active():
        script(device, noted)
    return noted, device


@pytest.mark.parametrize(
    "script",
    [
        accumulated,
        lambda *how: checkpointed(*how, use_reentrant=True),
        frozen_below,
        with_a_cache,
        generation,
        *(
            pytest.param(script, marks=pytest.mark.slow)
            for script in (
                plain_steps,
                lambda *how: checkpointed(*how, use_reentrant=False),
                graphs_that_go,
                evaluation,
                dispatched,
                model_with_a_given_gradient,
                attention_that_changes,
                kept_losses_of_models_that_go,
                backward_within_autocast,
            )
        ),
    ],
)
def test_memory_goes_as_when_each_layer_runs(script):
    expected, _ = run(script, replays_layers=False)
    noted, device = run(script, replays_layers=True)
    assert noted == expected
    assert device.layers.num_replayed >= NUM_LAYERS - 1
    assert device.layers.failure is None


def test_layers_that_a_script_calls_by_itself_run():
    expected, _ = run(hand_written_loop, replays_layers=False)
    noted, device = run(hand_written_loop, replays_layers=True)
    assert noted == expected
    assert device.layers.num_replayed == 0


def computed_weights(device: DryRunDevice) -> None:
    layer = torch.nn.TransformerEncoderLayer(64, 4, 256, batch_first=True)
    model = torch.nn.TransformerEncoder(layer, 5, enable_nested_tensor=False).cuda()
    rate = torch.tensor(0.1, device="cuda", requires_grad=True)
    for _ in range(3):
        weights = {name: p.detach() - rate * torch.randn_like(p) for name, p in model.named_parameters()}
        functional_call(model, weights, (torch.randn(2, 16, 64, device="cuda"),)).mean().backward()
    assert device.layers.num_replayed == 0


def own_code(device: DryRunDevice) -> None:
    model, calls = llama(), []
    forward = LlamaMLP.forward

    def counting(self: Any, x: torch.Tensor) -> Any:
        calls.append(1)
        return forward(self, x)

    with patch.object(LlamaMLP, "forward", counting):
        for _ in range(3):
            loss_of(model).backward()
    assert len(calls) == 3 * NUM_LAYERS


@pytest.mark.parametrize("script", [computed_weights, own_code])
def test_weights_that_are_computed_and_code_of_a_script_run(script):
    run(lambda device, noted: script(device), replays_layers=True)


def two_forwards_for_one_loss(device: DryRunDevice, model: Any) -> None:
    (loss_of(model) + loss_of(model)).backward()


def frozen_between(device: DryRunDevice, model: Any) -> None:
    loss = loss_of(model)
    model.model.layers[2].requires_grad_(False)
    loss.backward()


def going_on_after_memory_ran_out(device: DryRunDevice, model: Any) -> None:
    losses: list[torch.Tensor] = []
    with suppress(DeviceOutOfMemory):
        for _ in range(1000):
            losses.append(loss_of(model))
    losses.clear()
    loss_of(model)


def shared_weights(device: DryRunDevice, model: Any) -> None:
    for layer in model.model.layers[1:]:
        layer.mlp = model.model.layers[0].mlp
    for _ in range(2):
        loss_of(model).backward()


@pytest.mark.parametrize(
    "script", [two_forwards_for_one_loss, shared_weights, frozen_between, going_on_after_memory_ran_out]
)
def test_what_would_not_be_the_same_is_run_without_replay(script):
    def whole(device, noted):
        model = llama()
        for _ in range(3):
            loss_of(model).backward()
        script(device, model)

    with pytest.raises(CannotReplay):
        run(whole, replays_layers=True, budget_bytes=96 * 2**20)


def test_gradients_are_where_they_would_be():
    def script(device, noted):
        model = llama()
        for _ in range(3):
            loss_of(model).backward()
        assert all(weight.grad.shape == weight.shape and weight.grad.is_cuda for weight in model.parameters())

    run(script, replays_layers=True)


def test_what_does_not_fit_names_the_line_and_leaves_nothing_behind():
    found: list[tuple[int, tuple[str, ...]]] = []

    def script(device, noted):
        model = llama()
        for _ in range(3):
            loss_of(model).backward()
        model.zero_grad()
        before = device.stats().allocated_bytes
        device.on_out_of_memory(lambda error: found.append((error.requested_bytes, error.frames)))
        for _ in range(2):
            with pytest.raises(DeviceOutOfMemory):
                loss_of(model, (64, 256))
        assert device.stats().allocated_bytes == before

    run(script, replays_layers=True, budget_bytes=48 * 2**20)
    as_it_ran, replayed = found
    assert as_it_ran == replayed
    assert any("LlamaDecoderLayer" in frame or "modeling_llama.py" in frame for frame in replayed[1])
    assert any("loss_of" in frame for frame in replayed[1])


@pytest.mark.parametrize("hook", ["register_forward_hook", "register_full_backward_hook"])
def test_a_layer_that_a_script_hooks_into_runs(hook):
    calls = []

    def script(device, noted):
        model = llama()
        getattr(model.model.layers[3].mlp, hook)(lambda *_: calls.append(1))
        for _ in range(4):
            loss_of(model).backward()

    run(script, replays_layers=True)
    assert len(calls) == 4


def test_the_layers_of_a_script_run():
    class Block(torch.nn.Module):
        num_calls = 0

        def __init__(self):
            super().__init__()
            self.inner = torch.nn.Linear(8, 8)

        def forward(self, x):
            Block.num_calls += 1
            return self.inner(x)

    def script(device, noted):
        model = torch.nn.Sequential(*(Block() for _ in range(4))).cuda()
        for _ in range(5):
            model(torch.ones(2, 8, device="cuda")).sum().backward()

    run(script, replays_layers=True)
    assert Block.num_calls == 20


class Alternating(torch.nn.Module):
    """A layer whose number decides what it does, though none of its settings say so."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.layer_idx = number
        self.inner = torch.nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(torch.cat([x, x])[:2]) if self.layer_idx == 3 else self.inner(x)


def test_layers_that_differ_by_their_number_run(monkeypatch):
    monkeypatch.setattr(layer_kinds, "is_library", lambda path: True)
    layer_kinds._is_in_library.cache_clear()

    def script(device, noted):
        model = torch.nn.Sequential(*map(Alternating, range(5))).cuda()
        for _ in range(3):
            model(torch.ones(2, 8, device="cuda")).sum().backward()
            note(device, noted)

    expected, _ = run(script, replays_layers=False)
    noted, device = run(script, replays_layers=True)
    layer_kinds._is_in_library.cache_clear()
    assert noted == expected
    assert device.layers.num_replayed == 0


@pytest.mark.parametrize("what", ["weights", "create_graph", "inputs"])
def test_what_replayed_layers_cannot_do_is_said(what):
    def script(device, noted):
        model = llama()
        for _ in range(3):
            loss_of(model).backward()
        if what == "weights":
            torch.autograd.grad(loss_of(model), list(model.parameters()), allow_unused=True)
        elif what == "inputs":
            loss_of(model).backward(inputs=list(model.model.layers[2].parameters()))
        else:
            loss_of(model).backward(create_graph=True)

    with pytest.raises(CannotReplay):
        run(script, replays_layers=True)
    run(script, replays_layers=False)


def test_classes_are_as_they_were_afterwards():
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer

    before = dict(vars(LlamaDecoderLayer)), torch.nn.ModuleList.__iter__, torch.autograd.grad
    run(plain_steps, replays_layers=True)
    assert before == (dict(vars(LlamaDecoderLayer)), torch.nn.ModuleList.__iter__, torch.autograd.grad)
