"""Micro-batches replayed as CUDA graphs: where a batch is short, launching its kernels takes longer than they do.

Of each shape the first micro-batch runs as it is, the second is captured, forward and backward pass apart, and the
others are replayed. Batches are padded to few lengths; attention is causal, so that what is padded on the right changes
nothing before it, and needs no mask. Every pass of a training step, captured or not, takes its memory from one pool:
blocks that graphs write to when they are replayed hold nothing then, as all that a micro-batch makes dies with it.
What lives longer is made here, before: gradients, inputs, the loss and the scale of its gradient.

Shapes: B sequences, L tokens of each, padding included.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import Enum, auto
from math import prod
from typing import Any

import torch

from memory_harness.harness.data.batching import Batch
from memory_harness.harness.devices.base import Device

Shape = tuple[int, int]
"""(B, L)"""

MAX_TOKENS = 4096
"""of a batch that is captured: beyond, kernels take longer than their launches on any card"""
MAX_GRAPHS = 48
"""shapes that are captured; what the driver keeps for each lies outside of PyTorch's allocator"""
LEAST_STEP = 64
"""of the lengths to which batches are padded"""
STEPS_PER_OCTAVE = 8
"""lengths between a power of two and the next: at most an eighth is padding"""

MAX_LOOKS, BETWEEN_LOOKS = 5, 0.002
"""how often, and after how many seconds, it is looked for what a micro-batch has left"""


class Stage(Enum):
    """How a micro-batch runs."""

    ALONE = auto()
    """as it is; its shape is not captured"""
    FIRST = auto()
    """as it is, in the shape of a graph: libraries choose and compile their kernels"""
    CAPTURE = auto()
    REPLAY = auto()


def graph_length(length: int) -> int:
    """Return the least length of a graph that holds so many tokens."""
    step = max(LEAST_STEP, (1 << (length.bit_length() - 1)) // STEPS_PER_OCTAVE)
    return -(-length // step) * step


class GraphBook:
    """Which shapes came how often; the same on a GPU and in replay.

    Args:
        forbids: takes the tokens of a batch, and says whether it cannot be captured.
    """

    def __init__(self, forbids: Callable[[int], bool]) -> None:
        self._forbids = forbids
        self._stages: dict[tuple[int, int], Stage] = {}
        self._is_used = False

    def take(self, batch: Batch) -> tuple[Batch, Stage]:
        """Return the batch as it is to run, and how; it counts."""
        self._is_used = True
        length = graph_length(batch.shape.padded_length)
        shape = replace(batch.shape, padded_length=length, lengths=(length,) * batch.shape.batch_size)
        if shape.padded_tokens > MAX_TOKENS or self._forbids(shape.padded_tokens):
            return batch, Stage.ALONE
        key = (shape.batch_size, length)
        if key not in self._stages and len(self._stages) == MAX_GRAPHS:
            return batch, Stage.ALONE
        stage = self._stages[key] = _NEXT[self._stages.get(key, Stage.ALONE)]
        return replace(batch, shape=shape), stage

    def forget(self) -> bool:
        """Begin anew; return whether any batch has been taken since the last time."""
        was_used, self._is_used = self._is_used, False
        self._stages.clear()
        return was_used


_NEXT = {
    Stage.ALONE: Stage.FIRST,
    Stage.FIRST: Stage.CAPTURE,
    Stage.CAPTURE: Stage.REPLAY,
    Stage.REPLAY: Stage.REPLAY,
}


class StepGraphs:
    """Runs the passes of micro-batches, and keeps their graphs.

    Args:
        device: where they run.
        book: says how each is to run.
        trainable: what gets gradients, which from now on are always there.
        dtype: in which products are computed.
    """

    def __init__(
        self, device: Device, book: GraphBook, trainable: Sequence[torch.nn.Parameter], dtype: torch.dtype
    ) -> None:
        self.book = book
        self._device = device
        where = device.torch_device
        self.buffers = {
            "input_ids": torch.zeros(MAX_TOKENS, dtype=torch.int64, device=where),
            "labels": torch.zeros(MAX_TOKENS, dtype=torch.int64, device=where),
            "loss": torch.zeros((), device=where),
            "grad_of_loss": torch.zeros((), device=where),
        }
        """what graphs read and write: inputs, of all shapes in the same place; the loss, and its gradient"""
        for parameter in trainable:
            parameter.grad = torch.zeros_like(parameter)
        self._replays: dict[Shape, dict[str, Callable[[], None]]] = {}
        self._shape: Shape = (0, 0)
        self.stage = Stage.ALONE
        """of the micro-batch that was put last"""
        self._allocated_bytes = 0
        with device.graph_pool():
            _make_workspaces(where, dtype)

    def put(self, arrays: Mapping[str, Any], shape: Shape, stage: Stage) -> dict[str, torch.Tensor]:
        """Return the inputs (B, L) of a micro-batch that is to run so."""
        self._shape, self.stage = shape, stage
        if stage is Stage.ALONE:
            return {name: self._device.put(array) for name, array in arrays.items()}
        inputs = {name: self.buffers[name][: prod(shape)].view(shape) for name in ("input_ids", "labels")}
        with self._device.on_host():
            for name, tensor in inputs.items():
                tensor.copy_(torch.as_tensor(arrays[name]))
        return inputs

    def forward(self, run: Callable[[], None]) -> None:
        """Run a forward pass, which leaves its loss in the buffer."""
        self._allocated_bytes = self._device.stats().allocated_bytes
        self._run("forward", run)

    def backward(self, run: Callable[[], None]) -> None:
        """Run the backward pass of what ran last, which takes the loss's gradient from the buffer."""
        self._run("backward", run)
        if self._device.computes and self.stage is not Stage.REPLAY and self._has_left_something():
            self.forget()  # graphs would write over it

    def _has_left_something(self) -> bool:
        """Return whether a micro-batch has left in the pool what was not there before.

        Autograd's thread lets go of its last tensors a moment after the pass.
        """
        for _ in range(MAX_LOOKS):
            if self._device.stats().allocated_bytes <= self._allocated_bytes:
                return False
            time.sleep(BETWEEN_LOOKS)
        return True

    def _run(self, name: str, run: Callable[[], None]) -> None:
        if self.stage is Stage.REPLAY and self._device.computes:
            self._replays[self._shape][name]()
        elif self.stage is Stage.CAPTURE:
            self._replays.setdefault(self._shape, {})[name] = self._device.capture(run)
        elif self.stage is not Stage.REPLAY:
            with self._device.graph_pool():
                run()

    def forget(self) -> bool:
        """Drop all graphs; return whether any pass has run in their pool since the last time."""
        self._replays.clear()
        return self.book.forget()


def _make_workspaces(where: torch.device, dtype: torch.dtype) -> None:
    """Let cuBLAS take its workspaces, one for each thread and stream, now: they outlive every micro-batch."""
    value = torch.zeros((8, 8), dtype=dtype, device=where, requires_grad=True)
    (value @ value).sum().backward()
