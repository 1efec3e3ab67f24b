"""Logits: sequences x tokens x vocabulary, the largest tensor of a step.

U stands for the 16-bit logits of one batch, batch x length x vocabulary x 2 bytes.
"""

from __future__ import annotations

from memory_harness.configs.schema import RunConfig
from memory_harness.configs.units import format_bytes
from memory_harness.harness.log.records import BatchShape, ModelFacts, OomRecord, Phase
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.detectors.reading import (
    GRAPH_PHASES,
    TIGHT_SHARE,
    TRAIN_PHASES,
    LogitsSize,
    config_of,
    fatal_finding,
    has_config,
    logits_size,
    peak_allocated_bytes,
    train_batches,
)
from memory_harness.probes.findings import Finding

LOSS_UNITS = 5
"""U that the full loss holds at its peak: 16-bit logits, float32 logits, log-softmax. Source: cause table."""

LOSS_UNITS_HELD = 6
"""The same in backward where the step keeps the output object, and with it the 16-bit logits. Source: cause table."""

LOGITS_SHARE = 0.1
"""Share of the budget from which the loss's copies are worth a line: below a tenth they are less than what the
allocator keeps in reserve (7 to 17 % of the peak in the measured stock recipe)."""

EVAL_LOGITS_SHARE = 0.5
"""Share of what evaluation adds that 16-bit and float32 logits must explain before they are called its cause."""

FRACTIONS = {2: "half of its steps", 3: "a third of its steps", 4: "a quarter of its steps"}


def eval_batch_logits(log: RunLog) -> list[Finding]:
    """Find an evaluation whose batch, larger than any training batch, needs logits that do not (or hardly) fit."""
    if log.fatal_oom is not None:
        return _eval_batch_oom(log, log.fatal_oom)
    return _eval_batch_peak(log)


def logits_fp32_copies(log: RunLog) -> list[Finding]:
    """Find float32 copies of the logits that end a training step, or that take a good part of the budget."""
    config = config_of(log)
    model, oom = log.run.model, log.fatal_oom
    if model is None or config.train.loss != "full":
        return []
    if oom is not None and oom.phase in GRAPH_PHASES:
        size = logits_size(oom, model, float32_head=config.model.kbit_upcast)
        if size is not None:
            return [_copies_oom(oom, size, config)]
    # which loss another loop computes is not known
    return _copies_peak(log, config, model) if has_config(log) else []


def _eval_batch_oom(log: RunLog, oom: OomRecord) -> list[Finding]:
    config = config_of(log)
    size = logits_size(oom, log.run.model, float32_head=config.model.kbit_upcast)
    if oom.phase is not Phase.EVAL or oom.batch is None or size is None or not _exceeds_training(log, oom.batch):
        return []
    epochs = config.train.epochs if has_config(log) else 0
    train_peak = peak_allocated_bytes(log, *TRAIN_PHASES)
    run = log.run
    return [
        fatal_finding(
            oom,
            cause="eval-batch-logits",
            title=f"Evaluating {size.batch_size} sequences at once asks for {format_bytes(size.num_bytes)} of logits",
            explanation=" ".join(
                [
                    f"The loss makes {size.dtype} logits of the whole evaluation batch at once: {size} "
                    "(sequences × tokens × vocabulary × bytes).",
                    f"At that moment {format_bytes(oom.allocated_bytes)} of {format_bytes(oom.budget_bytes)} is taken.",
                    *([_training_fits(train_peak, oom, _train_batch_size(log))] if train_peak else []),
                    _when_it_dies(oom, epochs, config.eval.eval_every, run.total_steps, run.steps_per_epoch),
                ]
            ).rstrip(),
            num_bytes=size.num_bytes,
            evidence={
                "eval_batch_size": size.batch_size,
                "padded_length": size.padded_length,
                "vocab_size": size.vocab_size,
                "bytes_per_element": size.bytes_per_element,
                "train_batch_size": _train_batch_size(log),
                "train_peak_bytes": train_peak,
                "total_steps": run.total_steps,
                "epoch": oom.epoch,
                "epochs": epochs,
                "fraction": round(oom.step / run.total_steps, 4) if run.total_steps else 0.0,
            },
        )
    ]


def _training_fits(train_peak: int, oom: OomRecord, train_batch_size: int) -> str:
    return (
        f"Training itself fits: with a batch of {train_batch_size} it peaks at {format_bytes(train_peak)} of "
        f"{format_bytes(oom.budget_bytes)}."
    )


def _when_it_dies(oom: OomRecord, epochs: int, every: int | None, total_steps: int, steps_per_epoch: int) -> str:
    """Say when evaluation comes; the claim about every sample count only where the step counts bear it out.

    Args:
        epochs: of the run; 0 where they are not known.
        every: steps between evaluations; None where it comes at the end of each epoch, or is not known.
    """
    if not total_steps:  # a memory snapshot counts no steps
        return ""
    if not epochs:
        return f"It comes after step {oom.step} of {total_steps}."
    if every is not None:
        return f"Evaluation runs every {every} steps, so the run dies at step {oom.step}."
    end_of_first = oom.epoch == 1 and oom.step == steps_per_epoch and total_steps == steps_per_epoch * epochs
    if not end_of_first:
        return f"It comes at the end of epoch {oom.epoch} of {epochs} (step {oom.step} of {total_steps})."
    if epochs == 1:
        return f"Evaluation comes at the end of the only epoch, so the run dies after its last step ({oom.step})."
    share = FRACTIONS.get(epochs, f"1/{epochs} of its steps")
    return (
        f"Evaluation comes at the end of each epoch, the first after {share} (step {oom.step} of {total_steps}): so "
        "the run dies there whatever the number of samples."
    )


def _eval_batch_peak(log: RunLog) -> list[Finding]:
    """Warn where the evaluation's peak is tight, above that of training, and mostly logits."""
    model, config = log.run.model, config_of(log)
    evals = [p for p in log.phases if p.phase is Phase.EVAL and p.batch]
    if model is None or not evals or config.train.loss != "full":
        return []
    worst = max(evals, key=lambda p: p.after.peak_allocated_bytes)
    peak, train_peak = worst.after.peak_allocated_bytes, peak_allocated_bytes(log, *TRAIN_PHASES)
    assert worst.batch is not None
    size = LogitsSize(worst.batch.batch_size, worst.batch.padded_length, model.vocab_size, 4)
    both_copies = size.num_bytes * 3 // 2
    explained = both_copies >= EVAL_LOGITS_SHARE * (peak - worst.allocated_before_bytes)
    tight = peak >= TIGHT_SHARE * log.run.budget_bytes
    if not (tight and peak > train_peak > 0 and explained and _exceeds_training(log, worst.batch)):
        return []
    return [
        Finding(
            cause="eval-batch-logits",
            severity="warning",
            title=f"Evaluating {size.batch_size} sequences at once, not training, sets the peak",
            explanation=f"Evaluation peaks at {format_bytes(peak)} of {format_bytes(log.run.budget_bytes)}, training "
            f"at {format_bytes(train_peak)}. The float32 logits of the evaluation batch alone are {size} (sequences "
            f"× tokens × vocabulary × bytes); training takes {_train_batch_size(log)} at a time.",
            phase=Phase.EVAL,
            steps=(worst.step, worst.step),
            bytes=size.num_bytes,
            evidence={
                "eval_batch_size": size.batch_size,
                "padded_length": size.padded_length,
                "vocab_size": size.vocab_size,
                "bytes_per_element": size.bytes_per_element,
                "train_batch_size": _train_batch_size(log),
                "eval_peak_bytes": peak,
                "train_peak_bytes": train_peak,
                "budget_bytes": log.run.budget_bytes,
            },
        )
    ]


def _exceeds_training(log: RunLog, batch: BatchShape) -> bool:
    """Whether the batch has both more sequences and more tokens than training ever took at once."""
    if not train_batches(log) and not has_config(log):
        return False
    most_tokens = max((b.padded_tokens for b in train_batches(log)), default=0)
    return batch.batch_size > _train_batch_size(log) and batch.padded_tokens > most_tokens


def _train_batch_size(log: RunLog) -> int:
    configured = config_of(log).train.train_batch_size
    return max((b.batch_size for b in train_batches(log)), default=configured)


def _copies_oom(oom: OomRecord, size: LogitsSize, config: RunConfig) -> Finding:
    return fatal_finding(
        oom,
        cause="logits-fp32-copies",
        title=f"The loss asks for another {format_bytes(size.num_bytes)} copy of the logits",
        explanation=f"{size} (sequences × tokens × vocabulary × bytes) is one {size.dtype} copy of the logits. The "
        "full loss holds several of them at once, "
        f"{format_bytes(_loss_bytes(size.num_bytes // size.bytes_per_element, config))} in all; a chunked loss "
        "computes the same value from a few tokens at a time.",
        num_bytes=size.num_bytes,
        evidence={
            "batch_size": size.batch_size,
            "padded_length": size.padded_length,
            "vocab_size": size.vocab_size,
            "bytes_per_element": size.bytes_per_element,
        },
    )


def _copies_peak(log: RunLog, config: RunConfig, model: ModelFacts) -> list[Finding]:
    largest = max(train_batches(log), key=lambda b: b.padded_tokens, default=None)
    if largest is None:
        return []
    held = _loss_bytes(largest.padded_tokens * model.vocab_size, config)
    chunked = _loss_bytes(min(config.train.loss_chunk_tokens, largest.padded_tokens) * model.vocab_size, config)
    if held < LOGITS_SHARE * log.run.budget_bytes:
        return []
    units = _loss_units(config)
    unit = LogitsSize(largest.batch_size, largest.padded_length, model.vocab_size, 2)
    return [
        Finding(
            cause="logits-fp32-copies",
            severity="info",
            title=f"Copies of the logits take about {format_bytes(held)} of each training step's peak",
            explanation=f"The full loss holds the logits in 16 bits and twice more in float32: {units} × the 16-bit "
            f"logits ({unit}). A chunked loss could save up to {format_bytes(held - chunked)}.",
            phase=Phase.BACKWARD,
            bytes=held,
            evidence={
                "batch_size": largest.batch_size,
                "padded_length": largest.padded_length,
                "vocab_size": model.vocab_size,
                "units": units,
                "saved_by_chunks_bytes": held - chunked,
                "budget_bytes": log.run.budget_bytes,
            },
        )
    ]


def _loss_units(config: RunConfig) -> int:
    return LOSS_UNITS_HELD if config.train.hold_outputs else LOSS_UNITS


def _loss_bytes(num_logits: int, config: RunConfig) -> int:
    """Bytes that the full loss holds at its peak, for so many logits."""
    return _loss_units(config) * num_logits * 2
