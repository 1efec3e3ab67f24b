"""What a configuration would take: its worst moments simulated, in a process that keeps what it has recorded.

The moments: loading, steps over the mix of lengths where lengths differ, the steps with the longest batches (with and
without padding, and of those that compute as much again), the largest evaluation batch, the longest step again, a
checkpoint. Generation is left to the run that verifies a choice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np

from memory_harness.configs.cards import Card, budget_of, card_of
from memory_harness.configs.errors import ConfigError
from memory_harness.configs.models import find_model
from memory_harness.configs.schema import Recomputed, RunConfig
from memory_harness.harness.data.batching import Batch, Example, eval_batches, train_steps
from memory_harness.harness.data.prepare import Prepared, prepare
from memory_harness.harness.log.records import BatchShape, MemoryStats, Phase, PhaseRecord, Record
from memory_harness.harness.observe.recorder import PhaseRecorder
from memory_harness.harness.simulate.memory import UNLIMITED
from memory_harness.harness.simulate.trace import Shape
from memory_harness.harness.strategies.compiled import CompiledStrategy
from memory_harness.harness.train.loop import evaluate_batch, load, train_step
from memory_harness.harness.train.recovery import catch_out_of_memory
from memory_harness.harness.train.rehearsal import longest_steps
from memory_harness.harness.train.run import make_strategy, simulate_card
from memory_harness.probes.plan.choose import Limits, Prediction
from memory_harness.probes.plan.recorded import recording_of

NUM_MIXED_STEPS = 48
"""steps over the real mix of lengths: in the reference measurement most of the cache had been carved by then"""

LONGEST = 2**20
"""tokens, up to which lengths are tried where the model names no limit"""
MAX_MICRO_BATCH = 1024
"""where the search for the largest ends"""

PADDING = 2
"""tokens that a padded sequence lacks: padding changes the kernel, its amount does not"""


def predict(config: RunConfig, headroom_bytes: int) -> Prediction:
    """Simulate the worst moments of a configuration, with as much memory as it wants and within its budget."""
    return predict_on(config, prepare(config), headroom_bytes)


def longest_step(config: RunConfig) -> int:
    """Return the bytes that steps with the longest batch reserve, with padding or without, each alone."""
    steps, recorded = train_steps(prepare(config).train, config, 1), recorded_model(config)
    return max(recorded.step(config, steps[number]).peak_reserved_bytes for number in longest_steps(steps))


def predict_on(config: RunConfig, data: Prepared, headroom_bytes: int) -> Prediction:
    """Simulate the worst moments that a configuration has with these samples."""
    needed = recorded_model(config).run(config, data, UNLIMITED)
    # a run that would reserve more has its cache given back before that, or goes out of memory
    return replace(needed, passes=needed.peak_reserved_bytes <= budget_of(config.device) - headroom_bytes)


def train_tokens(config: RunConfig) -> int:
    """Return the tokens that the training of the first epoch computes, padding included."""
    batches = chain.from_iterable(train_steps(prepare(config).train, config, 1))
    return sum(batch.shape.padded_tokens for batch in batches)


def predict_gpus(config: RunConfig) -> tuple[Prediction, ...]:
    """Simulate the worst moments on each GPU, with as much memory as it wants; on the first alone where all are alike.

    The first of GPUs with their own batches has the longest ones.
    """
    return recorded_model(config).run_each(config, prepare(config), UNLIMITED)


_RECORDED: dict[str, RecordedModel] = {}
"""the last one of this process"""


def recorded_model(config: RunConfig) -> RecordedModel:
    """Return the recorded model that a configuration replays, that of the last prediction where it serves."""
    key = recording_of(config)
    if key not in _RECORDED:
        _RECORDED.clear()  # what is recorded of an 8B model takes some 100 MB
        _RECORDED[key] = RecordedModel(config)
    return _RECORDED[key]


class RecordedModel:
    """A model's recorded phases, replayed under configurations that differ in `REPLAYED_FIELDS` alone."""

    def __init__(self, config: RunConfig, card: Card | None = None, strategy: CompiledStrategy | None = None) -> None:
        if strategy is None:
            strategy = _recording_strategy(config.with_fields(device="simulated", tensors="fake"), card)
        self.strategy, self.device = strategy, strategy.device
        self.num_layers = 0
        """0 before it has been run"""

    def run(self, config: RunConfig, data: Prepared, budget_bytes: int) -> Prediction:
        """Return what the worst moments take, and whether they fit."""
        return worst_of(self.run_each(config, data, budget_bytes))

    def run_each(self, config: RunConfig, data: Prepared, budget_bytes: int) -> tuple[Prediction, ...]:
        """Return the same of each GPU that takes something else."""
        return self._each(config, budget_bytes, lambda recorder: worst_moments(config, self.strategy, recorder, data))

    def show_worst_gpu(self, config: RunConfig, data: Prepared) -> None:
        """Let the strategy tell of the GPU that takes most from now on."""
        reserved = tuple(gpu.peak_reserved_bytes for gpu in self.run_each(config, data, UNLIMITED))
        self.device.gpu_peaks = reserved
        self.strategy.show_card(reserved.index(max(reserved)))
        self.strategy.start_over()

    def step(self, config: RunConfig, micro_batches: Sequence[Batch]) -> Prediction:
        """Return what three steps of these batches take, with as much memory as they want."""

        def moments(recorder: PhaseRecorder) -> None:
            for recorder.step in (1, 2, 3):
                train_step(self.strategy, recorder, micro_batches, 0.0)

        return self._run(config, UNLIMITED, moments)

    def fits(self, config: RunConfig, train: Shape, evaluation: Shape | None, budget_bytes: int) -> bool:
        """Return whether two steps of batches of this shape fit, with padding and without, and then an evaluation."""
        num_batches = min(2 * config.device.data_parallel_size, config.train.gradient_accumulation)

        def moments(recorder: PhaseRecorder) -> None:
            for padding in (PADDING, 0):
                for step in (1, 2):
                    recorder.step = step
                    train_step(self.strategy, recorder, [uniform_batch(train, padding)] * num_batches, 0.0)
                if evaluation is not None:
                    evaluate_batch(self.strategy, recorder, uniform_batch(evaluation, padding))
                    self.strategy.end_evaluation()

        return self._run(config, budget_bytes, moments).passes

    def _run(self, config: RunConfig, budget_bytes: int, moments: Callable[[PhaseRecorder], None]) -> Prediction:
        return worst_of(self._each(config, budget_bytes, moments))

    def _each(
        self, config: RunConfig, budget_bytes: int, moments: Callable[[PhaseRecorder], None]
    ) -> tuple[Prediction, ...]:
        budget_of_card, found = self.device.budget_bytes, []
        for number in range(self.device.tracer.num_cards):
            self.strategy.card_number = number
            found.append(self._run_on_card(config, budget_bytes, moments))
        self.strategy.restart(budget_of_card, config.device.expandable_segments)  # the next run may be no prediction
        return tuple(found)

    def _run_on_card(
        self, config: RunConfig, budget_bytes: int, moments: Callable[[PhaseRecorder], None]
    ) -> Prediction:
        self.strategy.inner.config = config
        self.strategy.restart(budget_bytes, config.device.expandable_segments)
        stats: list[MemoryStats] = [MemoryStats()]

        def write(record: Record) -> None:
            if isinstance(record, PhaseRecord):
                stats.append(record.after)

        def load_and_run() -> None:
            recorder = PhaseRecorder(self.device, write)
            with self.device.active():
                self.num_layers = load(self.strategy, recorder).num_layers
                moments(recorder)

        failure = catch_out_of_memory(self.device, load_and_run)
        allocated = max(after.peak_allocated_bytes for after in stats)
        reserved = max(after.peak_reserved_bytes for after in stats)
        return Prediction(failure is None, allocated, reserved)


def _recording_strategy(config: RunConfig, card: Card | None) -> CompiledStrategy:
    strategy = make_strategy(config, simulate_card(config, card or card_of(config.device)))
    assert isinstance(strategy, CompiledStrategy)
    return strategy


def worst_of(gpus: Sequence[Prediction]) -> Prediction:
    """Return what no GPU takes more than; it passes where all do."""
    allocated = max(gpu.peak_allocated_bytes for gpu in gpus)
    reserved = max(gpu.peak_reserved_bytes for gpu in gpus)
    return Prediction(all(gpu.passes for gpu in gpus), allocated, reserved)


def uniform_batch(shape: Shape, padding: int) -> Batch:
    """Return sequences of equal length, each with so much padding."""
    batch_size, length = shape
    example = Example(length - padding, 1)
    lengths = (length - padding,) * batch_size
    return Batch(
        BatchShape(batch_size, length, lengths, batch_size * example.num_target_tokens), (example,) * batch_size
    )


def find_limits(config: RunConfig, headroom_bytes: int) -> Limits:
    """Return the largest micro-batch, length and cap on tokens that fit; each alone, all else as configured."""
    if config.eval.eval_keep_logits:
        raise ConfigError(
            "--limits: not with --eval-keep-logits, as an evaluation then has no largest batch; leave one out"
        )
    if config.data.batching == "packed":
        raise ConfigError("--limits: tries batches of one length, not packed ones; use --batching bucketed")
    recorded, data = recorded_model(config), config.data
    budget = budget_of(config.device) - headroom_bytes
    unit, longest = data.pad_to_multiple_of, find_model(config.model.model).max_position_embeddings or LONGEST
    train_size, eval_size = config.train.train_batch_size, config.eval.eval_batch_size
    step_samples = train_size * config.train.gradient_accumulation  # a batch never has more

    def batch_fits(size: int) -> bool:
        return recorded.fits(config.with_fields(train_batch_size=size), (size, data.max_length), None, budget)

    def length_fits(units: int) -> bool:
        length = units * unit
        changed = config.with_fields(max_length=length, max_batch_tokens=None)
        evaluation = (eval_size, length) if config.eval.do_eval else None
        return recorded.fits(changed, (train_size, length), evaluation, budget)

    def tokens_fit(units: int) -> bool:
        cap = units * unit
        changed = config.with_fields(batching="bucketed", max_batch_tokens=max(cap, data.max_length))
        for size in sorted({1, min(2, step_samples), step_samples}):
            length = min(data.max_length, cap // size // unit * unit)
            if length > PADDING and not recorded.fits(changed, (size, length), None, budget):
                return False
        return True

    return Limits(
        micro_batch=largest_that_fits(batch_fits, MAX_MICRO_BATCH),
        length=unit * largest_that_fits(length_fits, longest // unit),
        batch_tokens=unit * largest_that_fits(tokens_fit, step_samples * data.max_length // unit),
        multiple_of=unit,
    )


def largest_that_fits(fits: Callable[[int], bool], highest: int) -> int:
    """Return the largest number up to `highest` that fits, 0 where none does: doubling, then halving the gap."""
    low, high = 0, 1
    while high <= highest and fits(high):
        low, high = high, 2 * high
    high = min(high, highest + 1)
    while high - low > 1:
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low


def worst_moments(config: RunConfig, strategy: CompiledStrategy, recorder: PhaseRecorder, data: Prepared) -> None:
    """Run the moments of a loaded strategy."""
    steps = train_steps(data.train, config, 1)
    positions = longest_steps(steps) | longest_of_each_rule(steps, strategy)
    longest = [steps[number] for number in sorted(positions)]
    # the longest last: had they come first, what they leave in the cache would serve all others
    for number, micro_batches in enumerate([*_mixed_steps(steps), *longest, *longest], 1):
        recorder.step = number
        train_step(strategy, recorder, micro_batches, 0.0)
        if config.train.empty_cache_every and number % config.train.empty_cache_every == 0:
            recorder.device.empty_cache()
    if config.eval.do_eval:
        _evaluate_widest(config, strategy, recorder, data)
    train_step(strategy, recorder, longest[0], 0.0)
    with recorder.phase(Phase.CHECKPOINT):
        strategy.save(Path())


def longest_of_each_rule(steps: Sequence[Sequence[Batch]], strategy: CompiledStrategy) -> set[int]:
    """Return the positions of the steps with the most tokens in one batch of those that compute as much again."""
    longest: dict[Recomputed, tuple[int, int]] = {}
    for position, micro_batches in enumerate(steps):
        for batch in micro_batches:
            tokens = batch.shape.padded_tokens
            rule = strategy.inner.recomputed(tokens)
            longest[rule] = max(longest.get(rule, (0, 0)), (tokens, position))
    return {position for _, position in longest.values()}


def _evaluate_widest(config: RunConfig, strategy: CompiledStrategy, recorder: PhaseRecorder, data: Prepared) -> None:
    if config.eval.empty_cache_before_eval:
        recorder.device.empty_cache()
    batches = eval_batches(data.eval, config)
    widest = max(batches, key=lambda batch: batch.shape.padded_tokens)
    for batch in batches if config.eval.eval_keep_logits else [widest]:
        evaluate_batch(strategy, recorder, batch)
    strategy.end_evaluation()


def _mixed_steps(steps: Sequence[Sequence[Batch]]) -> list[Sequence[Batch]]:
    """Return steps from all over the run; none where all batches are equally long."""
    lengths: set[int] = set()
    for micro_batches in steps:
        lengths.update(batch.shape.padded_length for batch in micro_batches)
    if len(lengths) == 1:
        return []
    return [steps[number] for number in np.linspace(0, len(steps) - 1, NUM_MIXED_STEPS).astype(int)]
