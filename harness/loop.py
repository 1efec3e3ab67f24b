"""The training loop: the same code on a GPU, on fake tensors and in replay.

LOAD        build the quantised model, add the adapter, make the optimizer
for each epoch
    for each optimizer step
        for each micro-batch
            DATA        copy it to the device
            FORWARD     loss over its target tokens, divided by those of the whole step
            BACKWARD    add to the gradients; the graph dies here
        OPTIMIZER       unscale, clip, update, clear the gradients
        [release cached blocks, if asked for]
        when due: [release cached blocks, if asked for], EVAL, then CHECKPOINT    (also at the end of each epoch)
GENERATE    answer held-out prompts
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path

from configs.schema import RunConfig
from harness.checkpoint import keep_newest
from harness.data import Prepared
from harness.data.batching import Batch, eval_batches, train_steps
from harness.devices.base import Device
from harness.generate import answer, requests
from harness.recorder import Recorder
from harness.records import BatchShape, EvalRecord, ModelFacts, Phase
from harness.replies import TUNED, Reply
from harness.strategies.base import Strategy


def load(strategy: Strategy, recorder: Recorder) -> ModelFacts:
    """Run the LOAD phase."""
    with recorder.phase(Phase.LOAD):
        return strategy.load()


def train(
    config: RunConfig, strategy: Strategy, device: Device, recorder: Recorder, data: Prepared, output: Path
) -> None:
    """Run all steps, evaluations, checkpoints and the final generation of a loaded strategy.

    Raises:
        Whatever the device raises when memory runs out; the caller turns that into an outcome.
    """
    total_steps = num_steps(config, data)
    for epoch in range(1, config.train.epochs + 1):
        if recorder.step == total_steps:  # fewer than an epoch's were asked for
            break
        recorder.epoch = epoch
        steps = train_steps(data.train, config, epoch)
        for position, micro_batches in enumerate(steps, 1):
            recorder.step += 1
            train_step(config, strategy, recorder, micro_batches, learning_rate(config, recorder.step, total_steps))
            if _due(config.train.empty_cache_every, recorder.step):
                device.empty_cache()
            is_last = position == len(steps)
            if _due(config.eval.eval_every, recorder.step, is_last):
                if config.eval.empty_cache_before_eval:
                    device.empty_cache()
                evaluate(strategy, recorder, eval_batches(data.eval, config))
            if _due(config.eval.save_every, recorder.step, is_last):
                with recorder.phase(Phase.CHECKPOINT):
                    strategy.save(output / f"checkpoint-{recorder.step}")
                keep_newest(output, config.eval.keep_checkpoints)
            if recorder.step == total_steps:
                break
    answer_prompts(config, strategy, recorder, data)


def train_step(
    config: RunConfig, strategy: Strategy, recorder: Recorder, micro_batches: Sequence[Batch], learning_rate: float
) -> None:
    """Run one optimizer step: every target token of the step counts the same, whatever micro-batch it is in."""
    begin = time.perf_counter()
    target_tokens = max(1, sum(batch.shape.target_tokens for batch in micro_batches))
    for recorder.micro_step, batch in enumerate(micro_batches):
        with recorder.phase(Phase.DATA, batch.shape):
            strategy.put(batch, training=True)
        with recorder.phase(Phase.FORWARD, batch.shape):
            strategy.forward(target_tokens)
            recorder.forward_facts = strategy.forward_facts
        with recorder.phase(Phase.BACKWARD, batch.shape):
            strategy.backward()
    with recorder.phase(Phase.OPTIMIZER):
        loss, grad_norm = strategy.optimizer_step(learning_rate)
    seconds = time.perf_counter() - begin
    recorder.end_step([batch.shape for batch in micro_batches], loss, grad_norm, learning_rate, seconds)


def evaluate(strategy: Strategy, recorder: Recorder, batches: Sequence[Batch], model: str = TUNED) -> EvalRecord:
    """Compute the held-out loss per target token; each batch is a phase, so that one that fails is named."""
    total, tokens = 0.0, 0
    for index, batch in enumerate(batches):
        with recorder.phase(Phase.EVAL, batch.shape, index):
            strategy.put(batch, training=False)
            loss = strategy.evaluate()
            recorder.forward_facts = strategy.forward_facts
        total = total + loss if loss is not None else float("nan")
        tokens += batch.shape.target_tokens
    mean = total / tokens if tokens and total == total else None
    record = EvalRecord(recorder.step, recorder.epoch, len(batches), tokens, mean, model)
    recorder.write(record)
    return record


def answer_prompts(
    config: RunConfig, strategy: Strategy, recorder: Recorder, data: Prepared, model: str = TUNED
) -> list[Reply]:
    """Generate replies to the prompts, a few at a time; those with a vetted reply are left out."""
    asked = requests(config, data)
    replies: list[Reply] = []
    for index, start in enumerate(range(0, len(asked), config.eval.generate_batch_size)):
        group = asked[start : start + config.eval.generate_batch_size]
        lengths = tuple(len(request.token_ids) for request in group)
        with recorder.phase(Phase.GENERATE, BatchShape(len(group), max(lengths), lengths, 0), index):
            replies += answer(config, strategy, data, group, model)
    return replies


def learning_rate(config: RunConfig, step: int, total_steps: int) -> float:
    """Return the rate of a step: rising over the warm-up, then falling to zero after the last step."""
    warmup = round(config.train.warmup_ratio * total_steps)
    if step <= warmup:
        return config.train.learning_rate * step / warmup
    left = (total_steps - step + 1) / max(1, total_steps - warmup)
    share = left if config.train.schedule == "linear" else (1 - math.cos(math.pi * left)) / 2
    return config.train.learning_rate * share


def steps_per_epoch(config: RunConfig, data: Prepared) -> int:
    """Return the optimizer steps in one pass over the training split."""
    return -(-len(data.train) // (config.train.train_batch_size * config.train.gradient_accumulation))


def num_steps(config: RunConfig, data: Prepared) -> int:
    """Return the optimizer steps of the whole run."""
    total = steps_per_epoch(config, data) * config.train.epochs
    return total if config.train.max_steps is None else min(total, config.train.max_steps)


def _due(every: int | None, step: int, is_last: bool = False) -> bool:
    """Tell whether something happens after this step; with no interval, at the end of each epoch."""
    return is_last if every is None else step % every == 0
