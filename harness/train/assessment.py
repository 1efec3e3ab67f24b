"""After training: the held-out loss, replies and what they score, with the adapter and without."""

from __future__ import annotations

from dataclasses import asdict

from memory_harness.configs.schema import RunConfig
from memory_harness.harness.data.batching import eval_batches
from memory_harness.harness.data.prepare import Prepared
from memory_harness.harness.log.records import EvalRecord, MetricsRecord
from memory_harness.harness.observe.recorder import PhaseRecorder
from memory_harness.harness.results.metrics import bits_per_byte, perplexity, score_texts
from memory_harness.harness.results.replies import BASE, TUNED, Reply
from memory_harness.harness.strategies.base import Strategy
from memory_harness.harness.train.generate import vetted_replies
from memory_harness.harness.train.loop import answer_prompts, evaluate
from memory_harness.harness.train.recovery import Protection


def assess(
    config: RunConfig,
    strategy: Strategy,
    recorder: PhaseRecorder,
    data: Prepared,
    protection: Protection,
    evaluated: EvalRecord | None = None,
) -> list[Reply] | None:
    """Evaluate and generate, with the adapter and (`compare_base`) without; write the metrics, return all replies.

    To be called within `device.active()`, in place of `answer_prompts`. Writes EVAL and GENERATE phases, an
    `EvalRecord` and a `MetricsRecord` for each of the two.

    Args:
        evaluated: the evaluation of the trained adapter, where there has been one since the last step.

    Returns:
        None where a stop was asked for.

    Raises:
        Whatever the device raises when memory runs out and `protection` cannot help.
    """

    def assess_one(model: str, evaluated: EvalRecord | None) -> list[Reply] | None:
        batches = eval_batches(data.eval, config)
        evaluated = evaluated or evaluate(config, strategy, recorder, batches, protection, model)
        if evaluated is None:
            return None
        replies = answer_prompts(config, strategy, recorder, data, protection, model)
        if replies is not None:
            recorder.write(metrics(evaluated, replies, data))
        return replies

    replies = assess_one(TUNED, evaluated)
    if replies is not None and config.eval.compare_base:
        with strategy.without_adapter():
            base = assess_one(BASE, None)
        replies = None if base is None else replies + base
    return None if replies is None else replies + vetted_replies(data)


def metrics(evaluated: EvalRecord, replies: list[Reply], data: Prepared) -> MetricsRecord:
    """Return what an evaluation and the replies of the same model amount to."""
    computed = evaluated.loss is not None
    # of an evaluation that had to leave batches out, the bytes are not known
    is_whole = evaluated.target_tokens == sum(example.num_target_tokens for example in data.eval)
    # where lengths are estimated, ids are made up, and nothing was said
    said = [reply for reply in replies if computed and data.prompts[reply.prompt].input_ids is not None]
    texts = [reply.text for reply in said]
    references = [data.prompts[reply.prompt].references for reply in said]
    return MetricsRecord(
        step=evaluated.step,
        model=evaluated.model,
        perplexity=perplexity(evaluated.loss),
        bits_per_byte=bits_per_byte(
            evaluated.loss, evaluated.target_tokens, data.eval_answer_bytes if is_whole else None
        ),
        **asdict(score_texts(texts, references)),
    )
