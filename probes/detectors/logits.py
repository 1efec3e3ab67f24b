"""Logits: sequences x tokens x vocabulary, the largest tensor of a step.

U stands for the 16-bit logits of one batch, batch x length x vocabulary x 2 bytes.
"""

from dataclasses import replace
from itertools import product
from math import prod
from typing import NamedTuple

from memory_harness.configs.schema import RunConfig
from memory_harness.configs.units import format_bytes
from memory_harness.harness.log.allocator_sizes import segment_size
from memory_harness.harness.log.records import BatchShape, ModelFacts, OomRecord, Phase
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.detectors.analysis import DTYPES
from memory_harness.probes.detectors.evidence import Evidence
from memory_harness.probes.detectors.reading import (
    GRAPH_PHASES,
    TIGHT_SHARE,
    TRAIN_PHASES,
    called_at,
    dies_of_replies,
    fatal_finding,
    highest_peak,
    made_in_forward,
    peak_rise_bytes,
    records_of,
    setting_at,
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


class LogitsSize(NamedTuple):
    """Logits as sequences x tokens x vocabulary x bytes per element."""

    batch_size: int
    padded_length: int
    vocab_size: int
    bytes_per_element: int

    @property
    def num_bytes(self) -> int:
        """The product."""
        return prod(self)

    @property
    def dtype(self) -> str:
        """Element type in words."""
        return DTYPES.get(self.bytes_per_element, "64-bit")

    def __str__(self) -> str:
        return f"{' × '.join(map(str, self))} B = {format_bytes(self.num_bytes)}"


def logits_size(
    oom: OomRecord, model: ModelFacts | None, *, float32_head: bool, completion: int | None = None
) -> LogitsSize | None:
    """Return the failed request as logits of the failing batch, or None where its size says otherwise.

    A loss written by hand may ask for labels as one-hot rows, in 64 bits, where it has the logits twice already. With
    a `completion` of so many tokens, which the model has generated, they alone and one more have logits.

    Autocast copies a float32 head to 16 bits: vocabulary x hidden x 2 bytes, the size of 16-bit logits where a batch
    has as many tokens as the model has hidden units. That case is left open.
    """
    if oom.batch is None or model is None or not model.vocab_size:
        return None
    # a loss that predicts the next token leaves the last one out
    longest = oom.batch.padded_length if completion is None else completion + 1
    lengths = (longest, longest - 1)
    for length, bytes_per_element in product(lengths, (4, 2, 8)):
        size = LogitsSize(oom.batch.batch_size, length, model.vocab_size, bytes_per_element)
        is_head_copy = float32_head and bytes_per_element == 2 and oom.batch.padded_tokens == model.hidden_size
        # 64 bits for half as many tokens as the model has hidden units: the head in 32, or its gradient
        bytes_of_hidden = (4 * model.hidden_size, 2 * model.hidden_size)
        is_weight = bytes_per_element == 8 and size.batch_size * length * 8 in bytes_of_hidden
        # CUDA reports the segment that it could not get: the tensor rounded up
        if oom.requested_bytes in (size.num_bytes, segment_size(size.num_bytes)) and not (is_head_copy or is_weight):
            return size
    return None


def _completion(config: RunConfig) -> int | None:
    return config.train.max_completion_length if config.train.objective == "grpo" else None


def eval_batch_logits(evidence: Evidence) -> Finding | None:
    """Find an evaluation whose batch, larger than any training batch, needs logits that do not (or hardly) fit."""
    oom = evidence.log.fatal_oom
    return _eval_batch_peak(evidence) if oom is None else _eval_batch_oom(evidence, oom)


def logits_fp32_copies(evidence: Evidence) -> Finding | None:
    """Find float32 copies of the logits that end a training step, or that take a good part of the budget."""
    config, model, oom = evidence.config, evidence.log.run.model, evidence.log.fatal_oom
    if model is None or config.train.loss != "full":
        return None
    if oom is not None and oom.phase in GRAPH_PHASES and not dies_of_replies(evidence.log):
        size = logits_size(oom, model, float32_head=config.model.casts_to_float32, completion=_completion(config))
        if size is not None:
            return _copies_oom(evidence.log, oom, size, config)
    # which loss another loop computes is not known
    return _copies_peak(evidence, model) if evidence.has_config else None


def _eval_batch_oom(evidence: Evidence, oom: OomRecord) -> Finding | None:
    config, run = evidence.config, evidence.log.run
    size = logits_size(oom, run.model, float32_head=config.model.casts_to_float32, completion=_completion(config))
    if oom.phase is not Phase.EVAL or oom.batch is None or size is None or not _exceeds_training(evidence, oom.batch):
        return None
    if dies_of_replies(evidence.log):
        return None
    epochs = config.train.epochs if evidence.has_config else 0
    train_peak, train_batch_size = highest_peak(evidence.log, *TRAIN_PHASES), _train_batch_size(evidence)
    sentences = [
        f"The loss makes {size.dtype} logits of the whole evaluation batch at once: {size} "
        "(sequences × tokens × vocabulary × bytes).",
        f"At that moment {format_bytes(oom.allocated_bytes)} of {format_bytes(oom.budget_bytes)} is taken.",
    ]
    if train_peak:
        sentences.append(
            f"Training itself fits: with a batch of {train_batch_size} it peaks at {format_bytes(train_peak)} of "
            f"{format_bytes(oom.budget_bytes)}."
        )
    sentences.append(_when_it_dies(oom, epochs, config.eval.eval_every, run.total_steps, run.steps_per_epoch))
    finding = fatal_finding(
        oom,
        cause="eval-batch-logits",
        title=f"Evaluating {_sequences(size)} at once asks for {format_bytes(size.num_bytes)} of logits",
        explanation=" ".join(sentences).rstrip(),
        num_bytes=size.num_bytes,
        evidence={
            "eval_batch_size": size.batch_size,
            "padded_length": size.padded_length,
            "vocab_size": size.vocab_size,
            "bytes_per_element": size.bytes_per_element,
            "train_batch_size": train_batch_size,
            "train_peak_bytes": train_peak,
            "total_steps": run.total_steps,
            "epoch": oom.epoch,
            "epochs": epochs,
            "fraction": round(oom.step / run.total_steps, 4) if run.total_steps else 0.0,
        },
    )
    # how many sequences there are is nothing that a line within the model decides
    called = called_at(records_of(evidence.log, Phase.EVAL)[-1:])
    where = setting_at(evidence.log, "per_device_eval_batch_size") or called or finding.where
    return replace(finding, where=where)


def _sequences(size: LogitsSize) -> str:
    return "1 sequence" if size.batch_size == 1 else f"{size.batch_size} sequences"


def _when_it_dies(oom: OomRecord, epochs: int, every: int | None, total_steps: int, steps_per_epoch: int) -> str:
    """Return when evaluation comes; the claim about every sample count only where the step counts bear it out.

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


def _eval_batch_peak(evidence: Evidence) -> Finding | None:
    """Warn where the evaluation's peak is tight, above that of training, and mostly logits."""
    log, model = evidence.log, evidence.log.run.model
    evals = [record for record in records_of(log, Phase.EVAL) if record.batch]
    if model is None or not evals or evidence.config.train.loss != "full" or _completion(evidence.config):
        return None
    worst = max(evals, key=lambda record: record.after.peak_allocated_bytes)
    peak, train_peak = worst.after.peak_allocated_bytes, highest_peak(log, *TRAIN_PHASES)
    assert worst.batch is not None
    size = LogitsSize(worst.batch.batch_size, worst.batch.padded_length, model.vocab_size, 4)
    both_copies = size.num_bytes * 3 // 2
    explained = both_copies >= EVAL_LOGITS_SHARE * peak_rise_bytes(worst)
    tight = peak >= TIGHT_SHARE * log.run.budget_bytes
    if not (tight and peak > train_peak > 0 and explained and _exceeds_training(evidence, worst.batch)):
        return None
    return Finding(
        cause="eval-batch-logits",
        severity="warning",
        title=f"Evaluating {_sequences(size)} at once, not training, sets the peak",
        explanation=f"Evaluation peaks at {format_bytes(peak)} of {format_bytes(log.run.budget_bytes)}, training "
        f"at {format_bytes(train_peak)}. The float32 logits of the evaluation batch alone are {size} (sequences "
        f"× tokens × vocabulary × bytes); training takes {_train_batch_size(evidence)} at a time.",
        phase=Phase.EVAL,
        steps=(worst.step, worst.step),
        bytes=size.num_bytes,
        evidence={
            "eval_batch_size": size.batch_size,
            "padded_length": size.padded_length,
            "vocab_size": size.vocab_size,
            "bytes_per_element": size.bytes_per_element,
            "train_batch_size": _train_batch_size(evidence),
            "eval_peak_bytes": peak,
            "train_peak_bytes": train_peak,
            "budget_bytes": log.run.budget_bytes,
        },
    )


def _exceeds_training(evidence: Evidence, batch: BatchShape) -> bool:
    """Return whether the batch has both more sequences and more tokens than training ever took at once."""
    if not evidence.train_batches and not evidence.has_config:
        return False
    most_tokens = max((trained.padded_tokens for trained in evidence.train_batches), default=0)
    return batch.batch_size > _train_batch_size(evidence) and batch.padded_tokens > most_tokens


def _train_batch_size(evidence: Evidence) -> int:
    """Return the most sequences that training took at once, or would have taken."""
    train = evidence.config.train
    configured = train.train_batch_size * train.sequences_per_sample
    return max((batch.batch_size for batch in evidence.train_batches), default=configured)


def _copies_oom(log: RunLog, oom: OomRecord, size: LogitsSize, config: RunConfig) -> Finding:
    finding = fatal_finding(
        oom,
        cause="logits-fp32-copies",
        title=f"The loss asks for another {format_bytes(size.num_bytes)} copy of the logits",
        explanation=f"{size} (sequences × tokens × vocabulary × bytes) is one {size.dtype} copy of the logits. The "
        "full loss holds several of them at once, "
        f"{format_bytes(_loss_bytes(size.num_bytes // size.bytes_per_element, config))} in all; a chunked loss "
        "computes the same value from a few tokens at a time.",
        num_bytes=size.num_bytes,
        evidence=size._asdict(),
    )
    return replace(finding, where=made_in_forward(log, size.num_bytes) or finding.where)


def _copies_peak(evidence: Evidence, model: ModelFacts) -> Finding | None:
    config, budget_bytes = evidence.config, evidence.log.run.budget_bytes
    largest = max(evidence.train_batches, key=lambda batch: batch.padded_tokens, default=None)
    if largest is None or config.train.objective == "grpo":  # whose loss holds others
        return None
    held = _loss_bytes(largest.padded_tokens * model.vocab_size, config)
    chunked = _loss_bytes(min(config.train.loss_chunk_tokens, largest.padded_tokens) * model.vocab_size, config)
    if held < LOGITS_SHARE * budget_bytes:
        return None
    units = _loss_units(config)
    unit = LogitsSize(largest.batch_size, largest.padded_length, model.vocab_size, 2)
    return Finding(
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
            "budget_bytes": budget_bytes,
        },
    )


def _loss_units(config: RunConfig) -> int:
    return LOSS_UNITS_HELD if config.train.hold_outputs else LOSS_UNITS


def _loss_bytes(num_logits: int, config: RunConfig) -> int:
    """Return the bytes that the full loss holds at its peak, for so many logits."""
    return _loss_units(config) * num_logits * 2
