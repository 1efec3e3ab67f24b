"""What the loop asks of a training strategy; each call is one phase of the run, or a part of one.

A strategy owns everything that lives on the device between calls, so that the loop cannot keep memory alive by
accident.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from memory_harness.configs.schema import Recomputed, RunConfig
from memory_harness.harness.data.batching import Batch
from memory_harness.harness.log.records import ForwardFacts, ModelFacts
from memory_harness.harness.strategies.kept_logits import KeptLogits
from memory_harness.harness.strategies.sampling import GREEDY, Sampling
from memory_harness.harness.techniques.step_graphs import Stage


class Strategy(Protocol):
    """Loads, trains, evaluates, generates and saves."""

    forward_facts: ForwardFacts | None
    """how the last `forward` or `evaluate` was made"""

    @property
    def planned(self) -> ModelFacts | None:
        """What `load` knew of the model before it had weights; None where it knew nothing."""

    def load(self) -> ModelFacts:
        """Build or load the quantised model, add the adapter, make the optimizer."""

    def put(self, batch: Batch, *, training: bool) -> None:
        """Copy a batch to the device; `forward` and `backward`, or `evaluate`, use it up."""

    def forward(self, num_target_tokens: float) -> None:
        """Compute the micro-batch's summed loss divided by the step's target tokens, or by infinity: to no effect."""

    def backward(self) -> None:
        """Add to the gradients; the graph and the batch die here."""

    def summands(self) -> list[torch.Tensor]:
        """Return what several GPUs add up before they update: the gradients, zeros where there are none, and the loss.

        On the device. Gradients of shared layers are added up in the backward pass.
        """

    def optimizer_step(self, learning_rate: float) -> tuple[float | None, float | None]:
        """Clip, update the adapter, clear the gradients; return the step's loss and gradient norm.

        Waits for the device once. Both are None where nothing is computed.
        """

    def evaluate(self) -> float | None:
        """Return the batch's summed loss, or None where nothing is computed; the batch dies here."""

    def end_batch(self) -> None:
        """Do what follows an evaluation batch: keep its logits, where the configuration says so."""

    def end_evaluation(self) -> None:
        """Let go of what its batches have kept."""

    def score(self, batches: Sequence[Batch]) -> None:
        """Compute the log-probabilities of all completions that their updates ask for, without a graph."""

    def prefill(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling = GREEDY, *, rolls_out: bool = False
    ) -> list[int]:
        """Run the prompts (token ids) through the model, keep the cache, return each one's next token.

        Until `release`, tokens are chosen as `sampling` says; one that rolls out generates as TRL's GRPO does: with
        dropout, and an adapter without mixed precision.
        """

    def decode(self) -> list[int]:
        """Feed the last tokens back, grow the cache by one, return each prompt's next token."""

    def release(self) -> None:
        """Drop the cache."""

    def without_adapter(self) -> AbstractContextManager[None]:
        """Within, `evaluate`, `prefill` and `decode` run the base model."""

    def export(self, folder: Path, adapter: dict[str, torch.Tensor] | None = None) -> None:
        """Write the adapter into `folder` in peft's format, or not at all; nothing where nothing is computed.

        Args:
            adapter: as it is in host memory already.
        """

    def save(self, folder: Path) -> None:
        """Write adapter, optimizer and scaler into `folder`, or not at all."""

    def restore(self, folder: Path) -> None:
        """Load what `save` wrote, through host memory."""


class TrainableStrategy(Strategy, Protocol):
    """A strategy that computes, and whose steps can be undone."""

    def load_adapter(self, folder: Path) -> None:
        """Give the adapter the values that `export` wrote into `folder`; the optimizer stays as it is."""

    def training_state(self) -> dict[str, Any]:
        """Return what `write_state` writes; of shared layers all GPUs have to ask for it, and the first gets it."""

    def write_state(self, folder: Path, state: dict[str, Any]) -> None:
        """Write what `training_state` has returned into `folder`, or not at all."""

    def adapter_on_host(self) -> dict[str, torch.Tensor]:
        """Return what is trained, in host memory; of shared layers all GPUs have to ask for it, the first gets it."""

    def trainable_bytes(self) -> int:
        """Return what the adapter's parameters take in float32."""

    def host_copy(self) -> dict[str, Any]:
        """Return adapter, optimizer and scaler as they are, in host memory."""

    def undo_to(self, copied: dict[str, Any]) -> None:
        """Undo whatever has happened to them since `host_copy`; allocates nothing on the device."""

    def abandon(self) -> None:
        """Drop everything of a step, an evaluation batch or a generation that did not end: graph, gradients, cache."""


@runtime_checkable
class Traceable(Strategy, Protocol):
    """A strategy whose phases can be recorded on fake tensors, and replayed: what `CompiledStrategy` asks of it."""

    config: RunConfig
    dtype: torch.dtype
    linear_shapes: tuple[tuple[int, int], ...]
    """the (out_features, in_features) that occur among the 4-bit layers"""

    kept: KeptLogits
    windows: tuple[int, ...]
    """lengths from which on layers attend to a part of the sequence only"""
    packs_by_kernel: bool
    """whether attention keeps the samples of a packed batch apart by where they begin, without a mask"""

    def mlp_chunks(self, training: bool, tokens: int) -> int:
        """Return into how many chunks feed-forward blocks cut a batch of so many tokens."""

    def recomputed(self, tokens: int) -> Recomputed:
        """Return what computes its activations again in a training batch of so many tokens."""

    def staged(self, batch: Batch, *, training: bool) -> tuple[Batch, Stage]:
        """Return a batch as it is to run, and how: captured as a graph, replayed, or as it is. It counts."""

    def put_staged(self, batch: Batch, stage: Stage, *, training: bool) -> None:
        """Copy a batch to the device, to run as `staged` has said."""

    def forget_graphs(self) -> bool:
        """Drop the graphs of micro-batches; return whether their pool may hold memory."""

    def release_graph_pool(self) -> None:
        """Return the memory of graphs that are dropped."""

    def named_tensors(self) -> Iterator[tuple[tuple[str, ...], torch.Tensor]]:
        """Yield every tensor that outlives a phase, under a name that stays the same from step to step."""

    def pretend_loaded(self) -> None:
        """Have the buffers and biases that loading made, as the first pass would find them."""

    def pretend_gradients(self, present: bool) -> None:
        """Have the gradients and the loss that a step would have here, or none, in training."""

    def pretend_cache(
        self, batch_size: int, length: int, padded: bool, sampling: Sampling = GREEDY, *, rolls_out: bool = False
    ) -> None:
        """Have an empty cache of `length` tokens, as decoding would find it."""
