"""After training: the held-out loss, replies and what they score, with the adapter and without."""

from dataclasses import asdict

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
from memory_harness.harness.train.run import Run


def assess(
    run: Run[Strategy], recorder: PhaseRecorder, protection: Protection, evaluated: EvalRecord | None = None
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
    replies = _assess_model(run, recorder, protection, TUNED, evaluated)
    if replies is None:
        return None
    if run.config.eval.compare_base:
        with run.strategy.without_adapter():
            base = _assess_model(run, recorder, protection, BASE)
        if base is None:
            return None
        replies += base
    return replies + vetted_replies(run.data)


def _assess_model(
    run: Run[Strategy],
    recorder: PhaseRecorder,
    protection: Protection,
    model: str,
    evaluated: EvalRecord | None = None,
) -> list[Reply] | None:
    """Evaluate, unless nothing is to be, and generate with the model as it is; None where a stop was asked for."""
    does_eval = run.config.eval.do_eval
    if not does_eval:
        evaluated = EvalRecord(recorder.step, recorder.epoch, 0, 0, None, model)  # of nothing, and not written down
    elif evaluated is None:
        evaluated = evaluate(run, recorder, eval_batches(run.data.eval, run.config), protection, model)
    if evaluated is None:
        return None
    replies = answer_prompts(run, recorder, protection, model)
    if replies is not None:
        computed = evaluated.loss is not None or (run.device.computes and not does_eval)
        recorder.write(metrics(evaluated, replies, run.data, computed))
    return replies


def metrics(evaluated: EvalRecord, replies: list[Reply], data: Prepared, computed: bool) -> MetricsRecord:
    """Return what an evaluation and the replies of the same model amount to.

    Args:
        computed: whether the replies were, and so say something.
    """
    # of an evaluation that had to leave batches out, the bytes are not known
    is_whole = evaluated.target_tokens == sum(example.num_target_tokens for example in data.eval)
    are_pairs = any(example.rejected is not None for example in data.eval)  # their loss is not one of tokens
    texts, references = [], []
    for reply in replies:
        prompt = data.prompts[reply.prompt]
        if computed and prompt.input_ids is not None:  # where lengths are estimated, ids are made up: nothing was said
            texts.append(reply.text)
            references.append(prompt.references)
    return MetricsRecord(
        step=evaluated.step,
        model=evaluated.model,
        perplexity=None if are_pairs else perplexity(evaluated.loss),
        bits_per_byte=bits_per_byte(
            evaluated.loss, evaluated.target_tokens, data.eval_answer_bytes if is_whole else None
        ),
        **asdict(score_texts(texts, references)),
    )
