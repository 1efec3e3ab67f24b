"""What several detectors read out of a log."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from memory_harness.configs.schema import RunConfig, config_from_dict
from memory_harness.configs.units import format_bytes
from memory_harness.harness.log.allocator_sizes import segment_size
from memory_harness.harness.log.errors import LogError
from memory_harness.harness.log.records import BatchShape, ModelFacts, OomRecord, Phase
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.findings import Finding

TRAIN_PHASES = (Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER, Phase.STEP)

FORWARD_PHASES = (Phase.FORWARD, Phase.STEP)
"""Where a micro-batch is worked on; STEP in loops that name no parts."""

GRAPH_PHASES = (*FORWARD_PHASES, Phase.BACKWARD)
"""Where activations live."""

TIGHT_SHARE = 0.85
"""Share of the budget above which a peak is tight: reserved exceeded peak allocated by 7 to 17 % in the measured stock
recipe (1024 to 4096 tokens, H200), so that an allocated peak above 85 % can fill the card."""


@dataclass(frozen=True)
class LogitsSize:
    """A failed request factored as sequences x tokens x vocabulary x bytes per element."""

    batch_size: int
    padded_length: int
    vocab_size: int
    bytes_per_element: int

    @property
    def num_bytes(self) -> int:
        """The product."""
        return self.batch_size * self.padded_length * self.vocab_size * self.bytes_per_element

    @property
    def dtype(self) -> str:
        """Element type in words."""
        return {4: "float32", 2: "16-bit"}[self.bytes_per_element]

    def __str__(self) -> str:
        factors = f"{self.batch_size} × {self.padded_length} × {self.vocab_size} × {self.bytes_per_element} B"
        return f"{factors} = {format_bytes(self.num_bytes)}"


def has_config(log: RunLog) -> bool:
    """Return whether it is known what the run was configured to do; of a loop that is not ours it is not."""
    return bool(log.run.config)


def config_of(log: RunLog) -> RunConfig:
    """Return the configuration that the log was made with; the defaults, which say nothing, where it has none.

    Raises:
        LogError: it has fields that this release does not know.
    """
    try:
        return config_from_dict(log.run.config)
    except (TypeError, KeyError, AttributeError) as error:
        raise LogError(f"the log was written by another release: {error}") from None


def train_batches(log: RunLog) -> list[BatchShape]:
    """Return the micro-batches whose forward pass ended, in order."""
    return [p.batch for p in log.phases if p.phase in FORWARD_PHASES and p.batch]


def peak_allocated_bytes(log: RunLog, *phases: Phase) -> int:
    """Return the highest allocated bytes in these phases, 0 where none of them ended."""
    return max((p.after.peak_allocated_bytes for p in log.phases if p.phase in phases), default=0)


def is_tight(log: RunLog) -> bool:
    """Return whether the run went out of memory or came close to it."""
    return log.fatal_oom is not None or log.peak_allocated_bytes >= TIGHT_SHARE * log.run.budget_bytes


def fatal_finding(
    oom: OomRecord, *, cause: str, title: str, explanation: str, num_bytes: int, evidence: dict[str, int | float | str]
) -> Finding:
    """Return the finding that names the cause of the out-of-memory that ended a run, with the moment's numbers."""
    moment = {"allocated_bytes": oom.allocated_bytes, "budget_bytes": oom.budget_bytes, "step": oom.step}
    return Finding(
        cause=cause,
        severity="error",
        title=title,
        explanation=explanation,
        phase=oom.phase,
        steps=(oom.step, oom.step),
        bytes=num_bytes,
        where=oom.where,
        evidence={**evidence, **moment},
    )


def logits_size(oom: OomRecord, model: ModelFacts | None, *, float32_head: bool) -> LogitsSize | None:
    """Return the failed request as logits of the failing batch, or None where its size says otherwise.

    Autocast copies a float32 head to 16 bits: vocabulary x hidden x 2 bytes, the size of 16-bit logits where a batch
    has as many tokens as the model has hidden units. That case is left open.
    """
    if oom.batch is None or model is None:
        return None
    # a loss that predicts the next token leaves the last one out
    lengths = (oom.batch.padded_length, oom.batch.padded_length - 1)
    for length, bytes_per_element in product(lengths, (4, 2)):
        size = LogitsSize(oom.batch.batch_size, length, model.vocab_size, bytes_per_element)
        is_head_copy = float32_head and bytes_per_element == 2 and oom.batch.padded_tokens == model.hidden_size
        # CUDA reports the segment that it could not get: the tensor rounded up
        if oom.requested_bytes in (size.num_bytes, segment_size(size.num_bytes)) and not is_head_copy:
            return size
    return None
