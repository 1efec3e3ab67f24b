"""A strategy that runs each phase once on fake tensors and from then on replays what it allocated.

The loop cannot tell it from the real one. Each call of the loop belongs to a chain: a micro-batch (put, forward,
backward), an evaluation batch (put, evaluate), an optimizer step, a decoding step. A chain is recorded when its shape
is new, derived from three recordings of other shapes where that is possible, and replayed through the allocator model.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from memory_harness.configs.errors import ConfigError, HarnessError
from memory_harness.configs.schema import RunConfig
from memory_harness.harness.data.batching import Batch
from memory_harness.harness.devices.card_memory import ReplayedMemory
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.log.records import ForwardFacts, ModelFacts, Phase
from memory_harness.harness.simulate.flash_attention import counted_tokens
from memory_harness.harness.simulate.lowering import fused_kernels
from memory_harness.harness.simulate.memoized import MemoizedMemory
from memory_harness.harness.simulate.memory import SimulatedMemory
from memory_harness.harness.simulate.trace import (
    Chain,
    DiscardingSink,
    Event,
    Shape,
    TraceFamily,
    TraceRecorder,
    on_card,
)
from memory_harness.harness.simulate.tracer import MAX_SITE_FRAMES
from memory_harness.harness.strategies.base import Traceable
from memory_harness.harness.strategies.sampling import GREEDY, Sampling
from memory_harness.harness.techniques.chunked_loss import loss_chunks
from memory_harness.harness.techniques.chunks import remainder
from memory_harness.harness.techniques.liger_loss import rows_per_chunk
from memory_harness.harness.techniques.step_graphs import Stage

MAX_REASON = 160
"""characters of an error that a line about it repeats"""

DECODE_SAMPLES = ((0, 40, 120), (0, -40, -120))
"""lengths beyond the first at which decoding is recorded, or before it where attention windows begin in between;
multiples of 8, so that masks are aligned alike"""

WINDOW_EDGE = 2
"""lengths this near to that of an attention window have no others in their class"""

TRAINING, EVALUATION = ("put", "forward", "backward"), ("put", "evaluate")

_PHASES_OF_CHAIN = {
    "load": (Phase.LOAD,),
    "train": (Phase.DATA, Phase.FORWARD, Phase.BACKWARD),
    "optimizer": (Phase.OPTIMIZER,),
    "eval": (Phase.EVAL, Phase.EVAL),
    "score": (Phase.LOGPROBS,),
    "keep": (Phase.EVAL,),
    "drop": (Phase.EVAL,),
    "prefill": (Phase.GENERATE,),
    "decode": (Phase.GENERATE,),
    "release": (Phase.GENERATE,),
    "save": (Phase.CHECKPOINT,),
}
"""by the first word of a chain's key"""


class CompiledStrategy:
    """Implements `Strategy` over a device with fake tensors; computes nothing, so every result is None or padding."""

    def __init__(self, inner: Traceable, device: SimulatedDevice) -> None:
        self.inner = inner
        self.device = device
        self.card_number = 0
        """of those that the model lies on, the one whose memory is told of"""
        self.num_traced = 0
        """chains that were run on fake tensors"""
        self._families: dict[Hashable, TraceFamily] = {}
        self._facts: ModelFacts | None = None
        self.forward_facts: ForwardFacts | None = None
        self._logits_kind: tuple[int, torch.dtype] | None = None
        """width and type of the logits that an evaluation keeps"""
        self._forward_facts: dict[TraceFamily, ForwardFacts | None] = {}
        self._settles: bool | None = None
        """whether the first pass changes the model for good, as a cast of biases does; None before it was recorded"""
        self._made_lasting = False
        """whether what was recorded last made a parameter or buffer"""
        self._usual_key: Hashable = None
        """that of the first pass, were it like any other; None but while it is recorded"""
        self.restart(device.budget_bytes, device.expandable_segments)

    def restart(self, budget_bytes: int, expandable_segments: bool) -> None:
        """Start over on a card with empty memory; what has been recorded is kept."""
        self.device.budget_bytes = budget_bytes
        self._start(MemoizedMemory(SimulatedMemory(budget_bytes, expandable_segments=expandable_segments)))

    def show_card(self, number: int) -> None:
        """Tell of that card's memory from the next start on."""
        self.card_number = number
        self.device.gpu_name = f"{self.device.card.title}, GPU {number} of {self.device.tracer.num_cards}"

    def start_over(self) -> None:
        """Start over on the same card, emptied; what the phases have done to its memory is kept too."""
        self._start(self.memory.emptied())

    def start_over_with(self, config: RunConfig) -> None:
        """Start over under a configuration for which the same phases are recorded."""
        self.inner.config = config
        expandable = config.device.expandable_segments
        if expandable == self.memory.memory.allocator.expandable_segments:
            self.start_over()
        else:
            self.restart(self.device.budget_bytes, expandable)

    def _start(self, memory: MemoizedMemory) -> None:
        self.memory = memory
        self.device.memory = ReplayedMemory(self.memory, phase_of_chain)
        self._outside = DiscardingSink(self.memory.empty_cache)
        self.device.tracer.sink = self._outside
        self._chain: _RunningChain | None = None
        self._micro_batches = 0
        self._has_optimizer_state = False
        self._decoding: tuple[int, int, bool] = (0, 0, False)
        """batch size, tokens in the cache, whether prompts are padded"""
        self._sampling, self._rolls_out = GREEDY, False
        self._has_adapter = True
        self.inner.kept.drop()
        self.inner.forget_graphs()
        self._eval_shape = (0, 0)
        """of the evaluation batch that was put"""
        self._has_passed = False
        """whether anything has gone through the model since it was loaded"""

    @property
    def planned(self) -> ModelFacts | None:
        """What the strategy knew of the model before it had weights."""
        return self.inner.planned

    def load(self) -> ModelFacts:
        """Build the model on fake tensors, the first time."""
        self._facts = self._single("load", (1, 1), self.inner.load) or self._facts
        assert self._facts is not None
        return self._facts

    def put(self, batch: Batch, *, training: bool) -> None:
        """Begin a training or evaluation chain."""
        if not training:
            self._leave_training()
        batch, stage = self.inner.staged(batch, training=training)
        shape = self._shape_of(batch)
        if training:
            first = self._micro_batches == 0
            self._micro_batches += 1
            how = (stage is Stage.ALONE, stage is Stage.REPLAY)  # what is captured allocates as what runs first
            self._begin_pass(("train", first, how, *self._batch_class(batch, training)), shape, TRAINING)
            self._pretend_gradients(not first)
        else:
            key = ("eval", *self._batch_class(batch, training), *self._kept_class())
            self._eval_shape = (batch.shape.batch_size, batch.shape.padded_length)
            self._begin_pass(key, shape, EVALUATION)
        self._phase(lambda: self.inner.put_staged(batch, stage, training=training))

    def _leave_training(self) -> None:
        """Make room for what does not run in the graphs' pool."""
        if self.inner.forget_graphs():
            self._single("graphs", (1, 1), self.inner.release_graph_pool)

    def forward(self, num_target_tokens: float) -> None:
        """Replay or record the forward pass."""
        self._phase(lambda: self.inner.forward(num_target_tokens))
        self._recall_facts()

    def backward(self) -> None:
        """Replay or record the backward pass."""
        self._phase(self.inner.backward)

    def summands(self) -> list[torch.Tensor]:
        """Nothing is computed."""
        return []

    def optimizer_step(self, learning_rate: float) -> tuple[float | None, float | None]:
        """Replay or record an optimizer step; the first one makes the optimizer's state."""
        self._begin(("optimizer", self._has_optimizer_state), (1, 1), ("optimizer_step",))
        self._pretend_gradients(True)
        self._phase(lambda: self.inner.optimizer_step(learning_rate))
        self._has_optimizer_state = True
        self._micro_batches = 0
        return None, None

    def evaluate(self) -> float | None:
        """Replay or record an evaluation batch."""
        self._phase(self.inner.evaluate)
        self._recall_facts()
        return None

    def _kept_class(self) -> tuple[bool, ...]:
        """Return whether the batch before leaves logits that this one's replace, where logits are kept."""
        kept = self.inner.kept
        return (kept.holds_batch_alone,) if kept.does_something else ()

    def end_batch(self) -> None:
        """Run what follows an evaluation batch, which takes no time: its sizes depend on all batches before."""
        kept, running = self.inner.kept, self._chain
        assert running is not None, "evaluate comes first"
        if not kept.does_something:
            return
        if running.chain is not None:
            kept.pretend_taken(self._eval_shape, self._logits_kind)
            self._name_tensors("logits")
        self._logits_kind = kept.kind or self._logits_kind
        self._run_through(("keep", *kept.situation), self.inner.end_batch)

    def end_evaluation(self) -> None:
        """Run it too."""
        if self.inner.kept.does_something:
            self._run_through(("drop", *self.inner.kept.situation), self.inner.end_evaluation)

    def _run_through(self, key: Hashable, run: Callable[[], Any]) -> None:
        """Run what is too short to be replayed, and pass on what it allocates."""
        _, events = self._record(run)
        self.memory.begin((key, (1, 1)), [None], comes_again=False)
        self.memory.next_phase(self._on_card(events))

    def _recall_facts(self) -> None:
        """A replayed pass was made as the recorded ones of its family."""
        assert self._chain is not None
        self.forward_facts = self._forward_facts.setdefault(self._chain.family, self.inner.forward_facts)

    def score(self, batches: Sequence[Batch]) -> None:
        """Replay or record the log-probabilities of completions."""
        first = batches[0]
        classes = tuple(self._batch_class(batch, training=True) for batch in batches)
        smaller = tuple(batch.shape.batch_size - first.shape.batch_size for batch in batches)
        self._begin_pass(("score", classes, smaller), self._shape_of(first), ("only",))
        self._phase(lambda: self.inner.score(batches))

    def prefill(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling = GREEDY, *, rolls_out: bool = False
    ) -> list[int]:
        """Replay or record the prompts' pass."""
        lengths = {len(prompt) for prompt in prompts}
        if len(lengths) > 1 and self.inner.config.model.attention == "flash_attention_2":
            raise ConfigError(
                f"--generate-batch-size {len(prompts)}: prompts of different lengths are not simulated with "
                "--attention flash_attention_2 (allowed with it: 1)"
            )
        shape = (len(prompts), max(lengths))
        self._leave_training()
        self._decoding, self._sampling, self._rolls_out = (*shape, len(lengths) > 1), sampling, rolls_out
        key = ("prefill", *self._shape_class(shape, len(lengths) > 1), sampling.kind, rolls_out)
        self._begin_pass(key, shape, ("only",))
        self._phase(lambda: self.inner.prefill(prompts, sampling, rolls_out=rolls_out))
        return [0] * len(prompts)

    def decode(self) -> list[int]:
        """Replay or record one more token; the family's length is that of the cache before it."""
        batch, length, padded = self._decoding
        key = ("decode", *self._shape_class((batch, 1), padded), padded and length % 8 == 0, self._sampling.kind)
        key = (*key, self._rolls_out, self._window_class(length))
        self._sample_decoding(key, batch, length, padded)
        self._single(key, (batch, length), self.inner.decode, comes_again=False)
        self._decoding = (batch, length + 1, padded)
        return [0] * batch

    def _sample_decoding(self, key: Hashable, batch: int, length: int, padded: bool) -> None:
        """Record decoding at lengths far apart: three neighbours would not tell a constant from a rounded length."""
        family = self._family(key)
        if family.recorded:
            return
        for sampled in self._lengths_like(length):
            self._pretend_cache(batch, sampled, padded)
            _, events = self._record(self.inner.decode)
            family.add((batch, sampled), [events])
            self.num_traced += 1

    def _lengths_like(self, length: int) -> list[int]:
        """Return lengths at which decoding runs the same operators; none where an attention window is too near."""
        for offsets in DECODE_SAMPLES:
            lengths = [length + offset for offset in offsets]
            if min(lengths) > 0 and len({self._window_class(sampled) for sampled in lengths}) == 1:
                return lengths
        return []

    def release(self) -> None:
        """Free the cache of this batch of prompts."""
        batch, length, padded = self._decoding
        key = ("release", padded, self._sampling.kind, self._rolls_out)
        if self._family(key).get((batch, 1)) is None:
            self._pretend_cache(batch, length, padded)
        self._single(key, (batch, 1), self.inner.release)

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        """Within, chains are those of the base model."""
        self._has_adapter = False
        try:
            with self.inner.without_adapter():
                yield
        finally:
            self._has_adapter = True

    def export(self, folder: Path, adapter: dict[str, torch.Tensor] | None = None) -> None:
        """Write nothing, as there are no values; the adapter's copy would be on the host."""

    def save(self, folder: Path) -> None:
        """Replay or record a checkpoint; nothing is written, as there are no values."""
        self._single(("save", self._has_optimizer_state), (1, 1), lambda: self.inner.save(folder))

    def restore(self, folder: Path) -> None:
        """Replay or record a resume; no values were saved, but their places on the device are made anew."""
        self._single(("restore", self._has_optimizer_state), (1, 1), lambda: self.inner.restore(folder))

    def _shape_of(self, batch: Batch) -> Shape:
        """Return a batch's size and length; its parts, or its real tokens, where attention goes by these."""
        whole = (batch.shape.batch_size, batch.shape.padded_length)
        if batch.is_packed:
            return (*whole, len(batch.parts)) if self.inner.packs_by_kernel else whole
        if self.inner.config.model.attention != "flash_attention_2" or not batch.has_padding:
            return whole
        return (*whole, counted_tokens(batch.num_real_tokens, batch.shape.padded_tokens))

    def _batch_class(self, batch: Batch, training: bool) -> tuple[Hashable, ...]:
        """Return what decides which operators run on a batch, and how the loss is cut."""
        shape = (batch.shape.batch_size, batch.shape.padded_length)
        whole = self._shape_class(shape, batch.has_padding, training=training)
        recomputed = self.inner.recomputed(batch.shape.padded_tokens) if training else None
        return (*whole, batch.is_packed, recomputed, *self._loss_class(batch.shape.padded_tokens, training))

    def _loss_class(self, tokens: int, training: bool) -> tuple[int, ...]:
        """Return how the loss is cut, and what decides which operators run on a chunk."""
        config = self.inner.config
        if config.train.loss == "chunked":
            chunks = loss_chunks(config, config.train.train_batch_size if training else config.eval.eval_batch_size)
            return chunks, remainder(tokens, chunks)
        if config.train.loss == "liger":
            assert self._facts is not None, "load comes first"
            return (rows_per_chunk(tokens, self._facts.vocab_size, self._facts.hidden_size),)
        return ()

    def _shape_class(self, shape: tuple[int, int], padded: bool, *, training: bool = False) -> tuple[Hashable, ...]:
        """Return what decides which operators run, apart from sizes: such shapes share their events."""
        batch, length = shape
        whole = (batch == 1, padded, length % 8 == 0, self._kernels(batch * length), self._has_adapter)
        return (*whole, *self._mlp_class(batch * length, training), self._window_class(length))

    def _window_class(self, length: int) -> tuple[int, ...]:
        """Return on which side of each attention window a length lies; those next to one stand for themselves."""
        beyond = (length - window for window in self.inner.windows)
        return tuple(max(-WINDOW_EDGE, min(WINDOW_EDGE, distance)) for distance in beyond)

    def _mlp_class(self, tokens: int, training: bool) -> tuple[Hashable, ...]:
        """Return how feed-forward blocks are cut, and what decides which operators run on a chunk."""
        chunks = self.inner.mlp_chunks(training, tokens)
        if chunks == 1:
            return ()
        return chunks, remainder(tokens, chunks), self._kernels(tokens // chunks), self._kernels(-(-tokens // chunks))

    def _kernels(self, rows: int) -> tuple[bool, ...]:
        return fused_kernels(self.device.card, self.inner.linear_shapes, rows, self.inner.dtype)

    def _family(self, key: Hashable) -> TraceFamily:
        return self._families.setdefault(key, TraceFamily())

    def _single(self, key: Hashable, shape: Shape, run: Callable[[], Any], *, comes_again: bool = True) -> Any:
        self._begin(key, shape, ("only",), comes_again=comes_again)
        return self._phase(run)

    def _begin_pass(self, key: tuple[Hashable, ...], shape: Shape, phases: Sequence[str]) -> None:
        """Begin a chain that runs the model; the first one, where it changes the model, has a family of its own."""
        is_first = self._settles is not False and not self._has_passed
        self._has_passed = True
        self._begin((*key, "first pass") if is_first else key, shape, phases)
        if is_first and self._settles and self._chain is not None and self._chain.chain is None:
            self.inner.pretend_loaded()
            self._name_tensors("parameter", "buffer")
        if is_first and self._settles is None:
            self._made_lasting = False
            self._usual_key = key

    def _begin(self, key: Hashable, shape: Shape, phases: Sequence[str], *, comes_again: bool = True) -> None:
        family = self._family(key)
        chain = family.get(shape)
        self._chain = _RunningChain(family, shape, chain, len(phases))
        unknown = [None] * len(phases)
        known = unknown if chain is None else list(map(self._on_card, chain))
        self.memory.begin((key, shape), known, comes_again=comes_again)

    def _on_card(self, events: Sequence[Event]) -> Sequence[Event]:
        return on_card(events, self.card_number) if self.device.tracer.num_cards > 1 else events

    def _phase(self, run: Callable[[], Any]) -> Any:
        """Replay the chain's next phase, or run it on fake tensors and replay what that recorded."""
        running = self._chain
        assert running is not None, "no chain has begun"
        if running.chain is not None:
            self.memory.next_phase()
            return None
        result, events = self._record(run)
        running.recorded.append(events)
        if len(running.recorded) == running.num_phases:
            running.family.add(running.shape, running.recorded)
            self.num_traced += 1
            self._learn_from_first_pass(running)
        self.memory.next_phase(self._on_card(events))
        return result

    def _learn_from_first_pass(self, running: _RunningChain) -> None:
        """Find out whether the first pass changed the model; one that did not is like any other."""
        if self._settles is not None or self._usual_key is None:
            return
        self._settles = self._made_lasting
        if not self._settles:
            self._family(self._usual_key).add(running.shape, running.recorded)
        self._usual_key = None

    def _record(self, run: Callable[[], Any]) -> tuple[Any, list[Event]]:
        tracer, recorder = self.device.tracer, TraceRecorder()
        # what is recorded is replayed in other steps too: it does not depend on who wants to know more now
        tracer.begin_recording(recorder)
        tracer.site_frames = MAX_SITE_FRAMES
        try:
            with self.device.layers_marked():
                result = self._understood(run)
            for name, tensor in self.inner.named_tensors():
                key = tracer.key_of(tensor)
                # logits that were one batch's are those of all once they are kept
                if isinstance(key, int) or (name[0] == "logits" and key != name):
                    self._made_lasting |= name[0] in ("parameter", "buffer")
                    recorder.rename(key, name)
                    tracer.rename(tensor, name)
        finally:
            tracer.begin_recording(self._outside)
        return result, recorder.events

    def _understood(self, run: Callable[[], Any]) -> Any:
        """Run a phase for the first time.

        Raises:
            ConfigError: the model does something that tensors without values do not bear, or that fails on a GPU too.
        """
        try:
            return run()
        except (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError) as error:
            line = _line_of_model(error)
            if line is None or isinstance(error, HarnessError):
                raise
            reason = " ".join(str(error).split())[:MAX_REASON]
            raise ConfigError(
                f"--model {self.inner.config.model.model}: not understood at {line}, {type(error).__name__}: {reason}"
            ) from error

    def _pretend_gradients(self, present: bool) -> None:
        """Give the fake model the gradients that it would have here, had the phases before not been replayed."""
        if self._chain is not None and self._chain.chain is None:
            self.inner.pretend_gradients(present)
            self._name_tensors("gradient", "loss", "output")

    def _pretend_cache(self, batch: int, length: int, padded: bool) -> None:
        """Give the fake model a key/value cache of `length` tokens."""
        self.inner.pretend_cache(batch, length, padded, self._sampling, rolls_out=self._rolls_out)
        self._name_tensors("kv_cache", "input", "parameter", "buffer", "gathered")

    def _name_tensors(self, *kinds: str) -> None:
        """Let the tracer know the tensors of these kinds by the names that they have in every step."""
        for name, tensor in self.inner.named_tensors():
            if name[0] in kinds:
                self.device.tracer.rename(tensor, name)


def _line_of_model(error: BaseException) -> str | None:
    """Return the innermost line of a model's own code that an error passed through; None where there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame for frame in frames if "/transformers/models/" in frame.filename]
    if not lines:
        return None
    return f"{Path(lines[-1].filename).name}:{lines[-1].lineno} ({lines[-1].name})"


class _RunningChain:
    def __init__(self, family: TraceFamily, shape: Shape, chain: Chain | None, num_phases: int) -> None:
        self.family = family
        self.shape = shape
        self.chain = chain
        self.num_phases = num_phases
        self.recorded: list[list[Event]] = []


def phase_of_chain(key: Hashable, position: int) -> str:
    """Return what a chain's phase is in the run, such as `EVAL 8x2048`, or nothing.

    Args:
        key: a chain's name, or a tuple that begins with it, together with the shape; alone, it is no chain's.
        position: of the phase in the chain.
    """
    if not isinstance(key, tuple):
        return ""
    chain, (batch_size, length, *_) = key
    name = chain[0] if isinstance(chain, tuple) else chain
    phases = _PHASES_OF_CHAIN.get(str(name), ())
    if position >= len(phases):
        return ""
    if name in ("train", "eval"):
        return f"{phases[position]} {batch_size}x{length}"
    return str(phases[position])
