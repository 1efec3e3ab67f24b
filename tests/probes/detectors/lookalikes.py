"""Runs that look as if something were wrong in them, and nothing is: each is a mistake's harmless twin."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from memory_harness.configs.models import LINEAR_LAYERS
from memory_harness.configs.units import MIB
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.log.errors import DeviceOutOfMemory
from memory_harness.harness.log.records import PoolUse
from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.harness.strategies.state import STATE_FILE, read_tensors
from memory_harness.probes.faults.base import Fault, after, around, before_training_batch, on_output, with_lengths

VARYING = (64, 40, 56, 24, 48, 60, 32)


def lookalike(name: str, install: Any = None, prepare: Any = None, **settings: Any) -> Fault:
    """Return a run that should be found clean; `install` puts its code in."""
    return Fault(name, name, settings, prepare or (lambda data: data), install or (lambda strategy: None))


def ring_buffer(strategy: QLoraStrategy) -> None:
    ring: deque[Any] = deque(maxlen=4)
    on_output(strategy, True, lambda output: ring.append(output.logits.detach()))


def running_average(strategy: QLoraStrategy) -> None:
    average: dict[str, torch.Tensor] = {}

    def update(output: Any) -> None:
        new = output.logits.detach().mean(dim=1)
        average["logits"] = new if not average else 0.9 * average["logits"] + 0.1 * new

    on_output(strategy, True, update)


def kept_losses(strategy: QLoraStrategy) -> None:
    losses: list[Any] = []

    def backward(original: Callable[[], None]) -> None:
        losses.append(strategy.graph)
        original()

    around(strategy, "backward", backward)


def summed_losses(strategy: QLoraStrategy) -> None:
    total: list[Any] = [0.0]

    def backward(original: Callable[[], None]) -> None:
        total[0] = total[0] + strategy.graph
        original()

    around(strategy, "backward", backward)


def moving_average_of_weights(strategy: QLoraStrategy) -> None:
    shadow: list[torch.Tensor] = []

    def update() -> None:
        if not shadow:
            shadow.extend(p.detach().clone() for p in strategy.trainable())
        for average, parameter in zip(shadow, strategy.trainable(), strict=True):
            average.lerp_(parameter.detach(), 0.01)

    after(strategy, "optimizer_step", update)


def best_weights_kept(strategy: QLoraStrategy) -> None:
    best: dict[str, Any] = {}
    after(strategy, "save", lambda: best.update(weights=[p.detach().clone() for p in strategy.trainable()]))


def metric_with_reset(strategy: QLoraStrategy) -> None:
    state: list[Any] = []
    on_output(strategy, False, lambda output: state.append(output.logits.argmax(-1)))
    before_training_batch(strategy, state.clear)


def numbers_logged(strategy: QLoraStrategy) -> None:
    history: list[float] = []
    on_output(strategy, True, lambda output: history.append(output.logits.detach().float().mean().item()))


def last_activation(strategy: QLoraStrategy) -> None:
    last: dict[str, Any] = {}

    def register() -> None:
        layer = strategy.model.get_base_model().model.layers[0]
        layer.register_forward_hook(lambda module, args, output: last.update(output=output))

    after(strategy, "load", register)


def hook_removed(strategy: QLoraStrategy) -> None:
    kept: list[Any] = []
    handles: list[Any] = []

    def register() -> None:
        layer = strategy.model.get_base_model().model.layers[0]
        handles.append(layer.register_forward_hook(lambda module, args, output: kept.append(output.detach())))

    def remove() -> None:
        for handle in handles:
            handle.remove()

    after(strategy, "load", register)
    after(strategy, "optimizer_step", remove)


def workspace_for_the_longest(strategy: QLoraStrategy) -> None:
    workspace: dict[str, torch.Tensor] = {}

    def fit(output: Any) -> None:
        if not workspace or workspace["buffer"].numel() < output.logits.numel():
            workspace["buffer"] = torch.empty_like(output.logits)

    on_output(strategy, True, fit)


def buffer_made_late(strategy: QLoraStrategy) -> None:
    made: list[torch.Tensor] = []
    steps = 0

    def make() -> None:
        nonlocal steps
        steps += 1
        if steps == 7:
            made.append(torch.zeros(512, 512, device=strategy.device.torch_device))

    after(strategy, "optimizer_step", make)


def window_emptied(strategy: QLoraStrategy) -> None:
    window: list[Any] = []

    def collect(output: Any) -> None:
        if len(window) == 4:
            window.clear()
        window.append(output.logits.detach())

    on_output(strategy, True, collect)


def batch_skipped_rightly(strategy: QLoraStrategy) -> None:
    failed = False

    def forward(original: Callable[[int], None], num_target_tokens: int) -> None:
        nonlocal failed
        failed = False
        try:
            original(num_target_tokens)
        except DeviceOutOfMemory:
            failed = True
        if failed:  # outside the except block: the exception, its frames and their tensors are gone
            strategy.graph, strategy.inputs = None, {}

    def backward(original: Callable[[], None]) -> None:
        if not failed:
            original()

    around(strategy, "forward", forward)
    around(strategy, "backward", backward)


def optimizer_made_anew(strategy: QLoraStrategy) -> None:
    steps = 0

    def end_step() -> None:
        nonlocal steps
        steps += 1
        if steps % 7 == 0:
            strategy.make_optimizer()

    after(strategy, "optimizer_step", end_step)


def checkpoint_dropped(strategy: QLoraStrategy) -> None:
    def restore(original: Callable[[Path], None], folder: Path) -> None:
        with strategy.device.on_host():
            saved = read_tensors(folder / STATE_FILE)["adapter"]
        on_device = [strategy.device.put(value) for value in saved.values()]
        on_device.clear()
        original(folder)

    around(strategy, "restore", restore)


def graphs_of_a_few_lengths(strategy: QLoraStrategy) -> None:
    device = strategy.device
    assert isinstance(device, SimulatedDevice)
    after(strategy, "load", lambda: device.set_aside(PoolUse(2, 64 * 1024, 4 * MIB, 4 * MIB)))


def libraries_warm_up(strategy: QLoraStrategy) -> None:
    device = strategy.device
    assert isinstance(device, SimulatedDevice)
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1
        if steps in (1, 2, 7):
            device.take_beside(library_bytes=96 * MIB)

    before_training_batch(strategy, step)


LOOKALIKES = (
    lookalike("plain run"),
    lookalike("optimizer and learning rate warm up", warmup_ratio=0.5, lora_rank=32, target_modules=LINEAR_LAYERS),
    lookalike("lengths vary", prepare=with_lengths(VARYING), batching="dynamic"),
    lookalike("length curriculum", prepare=with_lengths(tuple(range(16, 64, 4))), batching="dynamic"),
    lookalike("ring buffer that fills and then stays", ring_buffer),
    lookalike("gradient accumulation", gradient_accumulation=2, samples=20),
    lookalike("evaluation every third step", eval_every=3, eval_batch_size=2),
    lookalike("checkpoint every second step", save_every=2),
    lookalike("generation that frees its cache", generate_prompts=3, max_new_tokens=6),
    lookalike("16-bit mixed precision", dtype="bfloat16"),
    lookalike("chunked loss", loss="chunked", loss_chunk_tokens=16),
    lookalike("running average, detached", running_average),
    lookalike("backwarded losses kept", kept_losses, gradient_checkpointing=False),
    lookalike("backwarded losses summed", summed_losses, gradient_checkpointing=False),
    lookalike("moving average of the weights", moving_average_of_weights),
    lookalike("best weights kept and replaced", best_weights_kept, save_every=3),
    lookalike("metric that is reset", metric_with_reset, eval_every=4, eval_batch_size=1),
    lookalike("numbers logged", numbers_logged),
    lookalike("hook that keeps the last activation", last_activation),
    lookalike("hook removed after the first step", hook_removed),
    lookalike("workspace for the longest batch", workspace_for_the_longest, with_lengths(VARYING), batching="dynamic"),
    lookalike("buffer made once, late", buffer_made_late),
    lookalike("window emptied every fourth step", window_emptied),
    lookalike("optimizer made anew, the old one dropped", optimizer_made_anew, lora_rank=16),
    replace(
        lookalike("checkpoint loaded to the card and dropped", checkpoint_dropped), resumes=True, needs_values=True
    ),
    lookalike("graphs of a few lengths, pinned buffers in use", graphs_of_a_few_lengths),
    lookalike("libraries that take more as new phases come", libraries_warm_up),
    lookalike(
        "batch skipped outside the except block",
        batch_skipped_rightly,
        with_lengths((64, 64, 64, 1024)),
        batching="dynamic",
        max_length=1024,
        eval_every=1000,
        budget_bytes=40 * MIB,
    ),
)
