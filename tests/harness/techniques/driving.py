"""Driving a strategy by hand, on real tensors or on a simulated card."""

from __future__ import annotations

from typing import Any

import torch

from memory_harness.configs.cards import find_card
from memory_harness.configs.schema import RunConfig
from memory_harness.harness.data.batching import Batch, Example
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.log.records import BatchShape, MemoryStats
from memory_harness.harness.strategies.qlora import QLoraStrategy

UNLIMITED = 2**45

TINY = RunConfig().with_fields(
    model="tiny-llama", dtype="float32", lora_dropout=0.0, max_length=64, tensors="real", loss_chunk_tokens=16
)
"""computed for real, in float32 and without dropout, so that losses can be compared"""

LLAMA_8B = RunConfig().with_fields(max_length=2048)


def uniform_batch(batch_size: int, length: int, *, padding: int = 0, prompt: int = 0) -> Batch:
    """Return sequences of equal length, each with `padding` and a masked prompt."""
    example = Example(length - padding, prompt)
    shape = BatchShape(batch_size, length, (length - padding,) * batch_size, batch_size * example.num_target_tokens)
    return Batch(shape, (example,) * batch_size)


def opened(config: RunConfig) -> tuple[QLoraStrategy, SimulatedDevice]:
    """Return a strategy on its device, of any size; nothing is loaded."""
    device = SimulatedDevice(
        find_card(config.device.gpu),
        UNLIMITED,
        computes=config.device.tensors == "real",
        attention=config.model.sdpa_kernel,
    )
    return QLoraStrategy(config, device), device


def micro_batch(config: RunConfig, batch: Batch) -> tuple[float, list[torch.Tensor]]:
    """Return the loss of one micro-batch and its gradients; the adapter is made to matter first."""
    torch.manual_seed(0)
    strategy, device = opened(config)
    with device.active():
        strategy.load()
        shake_adapter(strategy.model)
        strategy.put(batch, training=True)
        strategy.forward(batch.shape.target_tokens)
        strategy.backward()
    assert strategy.loss is not None
    return float(strategy.loss), [p.grad for p in strategy.trainable() if p.grad is not None]


def shake_adapter(model: Any) -> None:
    """Let the adapter matter."""
    # B starts at zero, and A's gradient would be zero too
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)


def evaluated(config: RunConfig, batch: Batch) -> float | None:
    """Return the summed loss of one evaluation batch."""
    torch.manual_seed(0)
    strategy, device = opened(config)
    with device.active():
        strategy.load()
        strategy.put(batch, training=False)
        return strategy.evaluate()


def simulated_peak(config: RunConfig, batch: Batch, *, training: bool = True) -> MemoryStats:
    """Return the counters after one micro-batch, or one evaluation batch, peaks since the model was loaded."""
    strategy, device = opened(config)
    with device.active():
        strategy.load()
        device.reset_peaks()
        strategy.put(batch, training=training)
        if training:
            strategy.forward(batch.shape.target_tokens)
            strategy.backward()
        else:
            strategy.evaluate()
        return device.stats()
