"""A short version of a run for a GPU: what can fail comes first, in the order in which the run would meet it.

    first two steps                  (the optimizer's state appears in the first)
    the steps with the longest batch, one with padding and one without: attention may take another kernel
    end of the first epoch           EVAL on its largest batch, CHECKPOINT, RESUME from it
    the step after it
    a soak of steps over the real mix of lengths
    end of the run                   EVAL, GENERATE

Records carry the steps at which the whole run would get there.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from memory_harness.harness.data.batching import Batch, eval_batches, train_steps
from memory_harness.harness.log.records import Phase
from memory_harness.harness.observe.recorder import PhaseRecorder
from memory_harness.harness.strategies.base import Strategy
from memory_harness.harness.train.loop import (
    answer_prompts,
    evaluate,
    num_steps,
    steps_per_epoch,
    train_step,
)
from memory_harness.harness.train.recovery import Protection
from memory_harness.harness.train.run import Run
from memory_harness.harness.train.schedules import learning_rate

SOAK_STEPS = 20
"""enough for the lengths of the corpus to carve the cache; a few seconds on any GPU that fits the model"""


def rehearse(run: Run[Strategy], recorder: PhaseRecorder, output: Path, protection: Protection) -> None:
    """Run the rehearsal of a loaded strategy.

    Raises:
        Whatever the device raises when memory runs out.
    """
    config, data = run.config, run.data
    total, per_epoch = num_steps(config, data), steps_per_epoch(config, data)
    steps = train_steps(data.train, config, 1)

    def step_at(step: int, micro_batches: Sequence[Batch]) -> None:
        recorder.step, recorder.epoch = step, 1 + (step - 1) // per_epoch
        train_step(run.strategy, recorder, micro_batches, learning_rate(config, step, total))

    def evaluate_at(step: int) -> None:
        if not config.eval.do_eval:
            return
        batches = eval_batches(data.eval, config)
        largest = max(batches, key=lambda batch: batch.shape.padded_tokens)
        recorder.step, recorder.epoch = step, 1 + (step - 1) // per_epoch
        if config.eval.empty_cache_before_eval:
            recorder.device.empty_cache()
        evaluate(run, recorder, batches if config.eval.eval_keep_logits else [largest], protection)

    step_at(1, steps[0])
    step_at(min(2, total), steps[min(1, len(steps) - 1)])
    for i in sorted(longest_steps(steps)):
        step_at(min(i + 1, total), steps[i])
    boundary = min(per_epoch, total)
    evaluate_at(boundary)
    folder = output / f"checkpoint-{boundary}"
    with recorder.phase(Phase.CHECKPOINT):
        run.strategy.save(folder)
    with recorder.phase(Phase.RESUME):
        run.strategy.restore(folder)
    for number, i in enumerate(np.linspace(0, len(steps) - 1, SOAK_STEPS).astype(int)):
        step_at(min(boundary + 1 + number, total), steps[i])
    evaluate_at(total)
    answer_prompts(run, recorder, protection)


def longest_steps(steps: Sequence[Sequence[Batch]]) -> set[int]:
    """Return the positions of the steps with the most padded tokens in one batch, with padding and without.

    Of packed ones too those that no longer one has as many samples as: each takes a kernel some memory.
    """
    longest = set()
    for has_padding in (True, False):
        sizes = [_largest_batch(batches, has_padding) for batches in steps]
        if max(sizes):
            longest.add(sizes.index(max(sizes)))
    return longest | _of_most_samples(steps)


def _of_most_samples(steps: Sequence[Sequence[Batch]]) -> set[int]:
    found: list[tuple[int, int, int]] = []
    for position, batches in enumerate(steps):
        packed = [batch for batch in batches if batch.is_packed]
        found += [(batch.shape.padded_tokens, len(batch.samples), position) for batch in packed]
    most, positions = 0, set[int]()
    for _, num_samples, position in sorted(found, reverse=True):
        if num_samples > most:
            most = num_samples
            positions.add(position)
    return positions


def _largest_batch(batches: Sequence[Batch], has_padding: bool) -> int:
    """Return the padded tokens of the largest batch that has padding, or none; 0 where there is no such batch."""
    sizes = [batch.shape.padded_tokens for batch in batches if batch.has_padding == has_padding]
    return max(sizes, default=0)
