"""The training loop: the same code on a GPU, on fake tensors and in replay.

LOAD        build the quantised model, add the adapter, make the optimizer
for each epoch
    for each optimizer step
        [ROLLOUT    generate the completions that the step learns from
         LOGPROBS   their log-probabilities under the policy and the reference]
        for each micro-batch
            DATA        copy it to the device
            FORWARD     loss over its target tokens, divided by those of the whole step
            BACKWARD    add to the gradients; the graph dies here
        [several GPUs: each takes its share of the micro-batches; gradients and losses are added up]
        OPTIMIZER       unscale, clip, update, clear the gradients
        [release cached blocks, if asked for]
        when due: [release cached blocks, if asked for], EVAL, then CHECKPOINT    (else at the end of each epoch)
CHECKPOINT  of the last step, if it has none
GENERATE    answer held-out prompts

What happens when one of these fails is up to `harness.train.recovery`.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain

import torch

from memory_harness.configs.models import find_model
from memory_harness.configs.schema import RunConfig
from memory_harness.harness.data.batching import Batch, eval_batches, halves, in_halves, train_steps
from memory_harness.harness.data.prepare import Prepared
from memory_harness.harness.log.manifest import START, Position
from memory_harness.harness.log.records import BatchShape, EvalRecord, ModelFacts, Phase
from memory_harness.harness.observe.recorder import PhaseRecorder
from memory_harness.harness.results.replies import TUNED, Reply
from memory_harness.harness.strategies.base import Strategy
from memory_harness.harness.strategies.sampling import GREEDY
from memory_harness.harness.train.generate import Request, answer, complete, generate, requests
from memory_harness.harness.train.recovery import Part, Protection, Result, Split, run_collectively
from memory_harness.harness.train.run import Run
from memory_harness.harness.train.schedules import learning_rate


def load(strategy: Strategy, recorder: PhaseRecorder) -> ModelFacts:
    """Run the LOAD phase."""
    with recorder.phase(Phase.LOAD):
        return strategy.load()


def train(run: Run[Strategy], recorder: PhaseRecorder, protection: Protection, start: Position = START) -> bool:
    """Run what is left of all steps, evaluations and checkpoints of a loaded strategy.

    Returns:
        Whether it got to the end; False where a stop was asked for.

    Raises:
        Whatever the device raises when memory runs out and `protection` cannot help; the caller turns that into an
        outcome.
    """
    config, data = run.config, run.data
    total_steps = num_steps(config, data)
    finish_step = partial(_finish_step, run, recorder, protection)
    if start.pending and not finish_step(start, start.steps_in_epoch == steps_per_epoch(config, data)):
        return False
    for epoch in range(start.epoch, config.train.epochs + 1):
        steps = train_steps(data.train, config, epoch)
        done = start.steps_in_epoch if epoch == start.epoch else 0
        for number, micro_batches in enumerate(steps[done:], done + 1):
            if recorder.step == total_steps:  # fewer than an epoch's were asked for
                return True
            recorder.step, recorder.epoch = recorder.step + 1, epoch
            rate = learning_rate(config, recorder.step, total_steps)
            position = Position(recorder.step, epoch, number)
            step = partial(train_step, run.strategy, recorder, learning_rate=rate)
            protection.step(step, micro_batches, position)
            if not finish_step(position, number == len(steps)):
                return False
    return True


def _finish_step(
    run: Run[Strategy], recorder: PhaseRecorder, protection: Protection, position: Position, is_last: bool
) -> bool:
    """Do what is due after a step; where a stop is asked for, save at once, leave the rest for later, return False.

    Args:
        position: after the step.
        is_last: whether it is the last step of its epoch.
    """
    config, device = run.config, run.device
    if _is_due(config.train.empty_cache_every, position.step):
        device.empty_cache()
    stopped = protection.stop_requested()
    if not stopped and config.eval.do_eval and _is_due(config.eval.eval_every, position.step, is_last):
        if config.eval.empty_cache_before_eval:
            device.empty_cache()
        stopped = evaluate(run, recorder, eval_batches(run.data.eval, config), protection) is None
    is_final = position.step == num_steps(config, run.data)
    if stopped or is_final or _is_due(config.eval.save_every, position.step, is_last):
        with recorder.phase(Phase.CHECKPOINT):
            protection.save(replace(position, pending=stopped))
    return not stopped


def train_step(
    strategy: Strategy, recorder: PhaseRecorder, micro_batches: Sequence[Batch], learning_rate: float
) -> None:
    """Run one optimizer step: every target token of the step counts the same, whatever micro-batch it is in."""
    begin = time.perf_counter()
    target_tokens = max(1, sum(batch.shape.target_tokens for batch in micro_batches))
    group = recorder.device.group

    def pass_over(number: int, batch: Batch, num_target_tokens: float) -> None:
        recorder.micro_step = number
        with recorder.phase(Phase.DATA, batch.shape):
            strategy.put(batch, training=True)
        with recorder.phase(Phase.FORWARD, batch.shape):
            strategy.forward(num_target_tokens)
            recorder.forward_facts = strategy.forward_facts
        with recorder.phase(Phase.BACKWARD, batch.shape):
            strategy.backward()

    def compute() -> list[torch.Tensor]:
        roll_out(strategy, recorder, micro_batches)
        own = group.shard(micro_batches)
        for number, batch in enumerate(own):
            pass_over(number, batch, target_tokens)
        if group.shares_layers:  # the others wait for its shards: a pass over what is smallest, which counts nothing
            for number in range(len(own), group.num_rounds(len(micro_batches))):
                pass_over(number, micro_batches[-1], math.inf)
        return strategy.summands() if group.is_joined else []

    def update() -> tuple[float | None, float | None]:
        with recorder.phase(Phase.OPTIMIZER):
            return strategy.optimizer_step(learning_rate)

    group.all_reduce(run_collectively(recorder, compute))
    loss, grad_norm = run_collectively(recorder, update)
    seconds = time.perf_counter() - begin
    recorder.end_step([batch.shape for batch in micro_batches], loss, grad_norm, learning_rate, seconds)


def roll_out(strategy: Strategy, recorder: PhaseRecorder, micro_batches: Sequence[Batch]) -> None:
    """Generate what a step learns from, where it does, and compute the log-probabilities that its update asks for."""
    rollout = micro_batches[0].rollout
    if rollout is None:
        return
    with recorder.phase(Phase.ROLLOUT, rollout.shape):
        complete(strategy, rollout)
    if rollout.is_scored:
        with recorder.phase(Phase.LOGPROBS, micro_batches[0].shape):
            strategy.score(micro_batches)


def evaluate(
    run: Run[Strategy],
    recorder: PhaseRecorder,
    batches: Sequence[Batch],
    protection: Protection,
    model: str = TUNED,
) -> EvalRecord | None:
    """Compute the held-out loss per target token; each batch is a phase, so that one that fails is named.

    Returns:
        None where a stop was asked for before the last batch; then nothing is recorded of the loss.
    """
    split = Split("eval_tokens", lambda batch: batch.shape.padded_tokens, lambda batch: halves(batch, run.config))
    losses = _over_shard(partial(evaluate_batch, run.strategy, recorder), batches, split, recorder, protection)
    run.strategy.end_evaluation()
    if losses is None:
        return None
    answer_rows(run, recorder, len(batches))
    total, tokens = 0.0, 0
    for loss, num_targets in losses:
        total += float("nan") if loss is None else loss
        tokens += num_targets
    mean = None if tokens == 0 or math.isnan(total) else total / tokens
    record = EvalRecord(recorder.step, recorder.epoch, len(batches), tokens, mean, model)
    recorder.write(record)
    return record


def answer_rows(run: Run[Strategy], recorder: PhaseRecorder, index: int) -> None:
    """Generate what a metric would compare with the held-out answers, after `index` batches of the evaluation."""
    config, size = run.config, run.config.eval.eval_batch_size
    if find_model(config.model.model).classifies:
        return
    prompts = [example.prompt for example in run.data.eval[: config.eval.eval_generate]]
    for start in range(0, len(prompts), size):
        with recorder.phase(Phase.EVAL, index=index + start // size):
            stops = run.data.tokenizer.stop_ids
            generate(run.strategy, prompts[start : start + size], config.eval.max_new_tokens, stops, GREEDY)


def evaluate_batch(
    strategy: Strategy, recorder: PhaseRecorder, batch: Batch, index: int = 0
) -> tuple[float | None, int]:
    """Run one evaluation batch; return its summed loss (None where nothing is computed) and its target tokens."""
    with recorder.phase(Phase.EVAL, batch.shape, index):
        if batch.rollout is not None:
            complete(strategy, batch.rollout)
        if batch.rollout is not None and batch.rollout.is_scored:
            strategy.score([batch])
        strategy.put(batch, training=False)
        loss = strategy.evaluate()
        strategy.end_batch()
        recorder.forward_facts = strategy.forward_facts
    return loss, batch.shape.target_tokens


def answer_prompts(
    run: Run[Strategy],
    recorder: PhaseRecorder,
    protection: Protection,
    model: str = TUNED,
    keep: Callable[[list[Reply]], object] = lambda replies: None,
) -> list[Reply] | None:
    """Generate replies to the prompts, a few at a time; those with a vetted reply are left out.

    Args:
        model: who answers.
        keep: takes the replies that came together as soon as they are there.

    Returns:
        None where a stop was asked for before the last ones.
    """
    asked, size = requests(run.config, run.data), run.config.eval.generate_batch_size
    batches: list[Sequence[Request]] = [asked[start : start + size] for start in range(0, len(asked), size)]
    split: Split[Sequence[Request]] = Split("generate_tokens", lambda batch: len(batch) * _longest(batch), in_halves)

    def answer_batch(batch: Sequence[Request], index: int) -> list[Reply]:
        lengths = tuple(len(request.token_ids) for request in batch)
        with recorder.phase(Phase.GENERATE, BatchShape(len(batch), _longest(batch), lengths, 0), index):
            replies = answer(run.config, run.strategy, run.data, batch, model)
        keep(replies)
        return replies

    replies = _over_shard(answer_batch, batches, split, recorder, protection)
    return None if replies is None else list(chain.from_iterable(replies))


def _over_shard(
    action: Callable[..., Result],
    batches: Sequence[Part],
    split: Split[Part],
    recorder: PhaseRecorder,
    protection: Protection,
) -> list[Result] | None:
    """Run over this GPU's share of the batches; return what all GPUs have made of theirs, in order of the batches.

    Args:
        action: takes a batch, or a part of one, and as `index` its number in this GPU's share.

    Returns:
        None where a stop was asked for before the last batch.
    """
    group = recorder.device.group
    done: list[tuple[int, list[Result]]] = []
    for index, numbered in enumerate(group.shard_by_weight(batches, split.tokens)):
        if protection.stop_requested():
            return None
        if numbered is not None:
            position, batch = numbered
            done.append((position, protection.in_parts(partial(action, index=index), batch, split)))
    return list(chain.from_iterable(group.gather_in_order(done)))


def _longest(batch: Sequence[Request]) -> int:
    return max(len(request.token_ids) for request in batch)


def steps_per_epoch(config: RunConfig, data: Prepared) -> int:
    """Return the optimizer steps in one pass over the training split, or over the batches that are given."""
    train = config.train
    if config.data.batches is not None:
        steps = -(-len(config.data.given_batches) // train.gradient_accumulation)
    else:
        sequences = len(data.train) * train.completions_per_sample
        steps = -(-sequences // (train.train_batch_size * train.gradient_accumulation))
    return steps * train.num_iterations


def num_steps(config: RunConfig, data: Prepared) -> int:
    """Return the optimizer steps of the whole run."""
    total = steps_per_epoch(config, data) * config.train.epochs
    if config.train.max_steps is None:
        return total
    return min(total, config.train.max_steps)


def _is_due(every: int | None, step: int, is_last: bool = False) -> bool:
    """Return whether something happens after this step; with no interval, at the end of each epoch."""
    if every is None:
        return is_last
    return step % every == 0
