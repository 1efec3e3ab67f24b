"""What an evaluation keeps of its batches, as transformers' Trainer does for a function that computes metrics.

Source: transformers/trainer.py, `evaluation_loop`; transformers/trainer_pt_utils.py, `EvalLoopContainer`; under mixed
precision accelerate/utils/operations.py, `ConvertOutputsToFp32`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any

import torch
from transformers.trainer_pt_utils import torch_pad_and_concatenate

from memory_harness.configs.schema import RunConfig
from memory_harness.harness.devices.base import Device


class KeptLogits:
    """The logits of all batches so far, in one tensor, and those of the last batch, which the loop still refers to."""

    def __init__(self, config: RunConfig, device: Device) -> None:
        self._device = device
        self._keeps = config.eval.eval_keep_logits
        self._every = config.eval.eval_accumulation_steps
        self._widens = config.model.autocast != "none" and config.model.dtype != "float32"
        self._all: torch.Tensor | None = None
        self._last: torch.Tensor | None = None
        self._num_batches = 0

    @property
    def does_something(self) -> bool:
        """Return whether an evaluation batch is followed by anything."""
        return self._keeps or self._every is not None

    @property
    def situation(self) -> tuple[Hashable, ...]:
        """Return what decides which allocations the next batch makes and frees; their sizes too."""
        if not self.does_something:
            return ()
        shapes = tuple(None if tensor is None else tensor.shape for tensor in (self._all, self._last))
        return (*shapes, self._all is self._last, self._is_due)

    @property
    def holds_batch_alone(self) -> bool:
        """Return whether the last batch's logits are freed once there are newer ones."""
        return self._last is not None and self._last is not self._all

    @property
    def _is_due(self) -> bool:
        return self._every is not None and (self._num_batches + 1) % self._every == 0

    def take(self, output: Any) -> None:
        """Take the logits of a batch's output, in float32 where autocast made them; those of the batch before go."""
        if self._keeps:
            logits = output.logits.float() if self._widens else output.logits
            output.logits = None
            self._last = logits

    @property
    def kind(self) -> tuple[int, torch.dtype] | None:
        """Return width and type of the last batch's logits, where they are kept."""
        return None if self._last is None else (self._last.shape[-1], self._last.dtype)

    def pretend_taken(self, shape: tuple[int, int], kind: tuple[int, torch.dtype] | None) -> None:
        """Have logits of a batch of this size and length, and of this kind, as the last batch's."""
        if kind is not None:
            width, dtype = kind
            self._last = torch.empty((*shape, width), dtype=dtype, device=self._device.torch_device)

    def keep(self) -> None:
        """Add the last batch's to all; let both go, and release cached blocks, every `eval_accumulation_steps`.

        The Trainer copies them to the host then. Here nobody asks for them.
        """
        is_due = self._is_due
        self._num_batches += 1
        if self._last is not None:
            self._all = self._last if self._all is None else torch_pad_and_concatenate(self._all, self._last)
        if is_due:
            self._all = self._last = None
            self._device.empty_cache()

    def drop(self) -> None:
        """Let all go, at the end of an evaluation."""
        self._all = self._last = None
        self._num_batches = 0

    def named_tensors(self) -> Iterator[tuple[tuple[str, ...], torch.Tensor]]:
        """Yield what outlives a batch."""
        if self._all is not None:
            yield ("logits", "all"), self._all
        if self._last is not None and self.holds_batch_alone:
            yield ("logits", "last"), self._last
