"""What a log shows, worked out once for all detectors: what steps and evaluations left, and what was trained on.

The floor is what stays allocated between two steps. It tells a leak from a long sample: the peak follows the length of
the batch, the floor does not.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from memory_harness.configs.schema import RunConfig
from memory_harness.harness.log.records import IN_STEP, BatchShape, Phase, PhaseRecord, StepRecord
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.detectors.reading import FORWARD_PHASES, config_of, has_config, left_bytes, records_of
from memory_harness.probes.detectors.trends import BURN_IN_STEPS, NOISE_BYTES
from memory_harness.probes.findings import Finding

KEPT_SCALARS_BYTES = 2 * 512
"""What each micro-step may leave beside `NOISE_BYTES`: a kept loss, and one more number, in a block each."""


@dataclass(frozen=True)
class StepGrowth:
    """What one optimizer step left allocated, and what it did."""

    step: int
    epoch: int
    floor_bytes: int
    """allocated when the step was over"""
    left_bytes: int
    """of it, what the step itself added"""
    micro_steps: int
    tokens: int
    """padded tokens of its micro-batches"""
    forward_bytes: int
    """what its forward passes added: the graph, while it lives"""
    has_new_length: bool
    """one of its padded lengths was not seen before"""
    has_new_longest: bool
    """one of them exceeds all before"""
    failed_phases: tuple[Phase, ...]
    """phases in which an allocation failed and somebody caught the error"""

    @property
    def noise_bytes(self) -> int:
        """What it may leave without being said to grow."""
        return NOISE_BYTES + KEPT_SCALARS_BYTES * self.micro_steps


@dataclass(frozen=True)
class Evaluation:
    """One evaluation: the batches that ended, in order."""

    step: int
    batches: tuple[PhaseRecord, ...]
    kept_bytes: int | None
    """what of it is still allocated one step later; None where no step followed"""

    @property
    def before_bytes(self) -> int:
        """Allocated when it began."""
        return self.batches[0].allocated_before_bytes

    @property
    def left_bytes(self) -> list[int]:
        """What each batch left allocated."""
        return [left_bytes(batch) for batch in self.batches]

    @property
    def grown_bytes(self) -> int:
        """What all batches left allocated."""
        return self.batches[-1].after.allocated_bytes - self.before_bytes


@dataclass(frozen=True)
class Evidence:
    """What every detector is handed."""

    log: RunLog
    config: RunConfig
    """the defaults, which say nothing, unless `has_config`"""
    has_config: bool
    steps: tuple[StepGrowth, ...]
    """of the longest training where there are several"""
    evaluations: tuple[Evaluation, ...]
    train_batches: tuple[BatchShape, ...]
    """the micro-batches whose forward pass ended, in order"""
    ranks: tuple[RunLog, ...] = ()
    """the logs of all GPUs that train the same model together, this one's among them; empty where only it is known"""

    @property
    def later_steps(self) -> tuple[StepGrowth, ...]:
        """The steps after the burn-in."""
        return self.steps[BURN_IN_STEPS:]


Detector = Callable[[Evidence], Finding | None]
"""Returns what it finds, None when unsure."""


def gather(log: RunLog, ranks: Sequence[RunLog] = ()) -> Evidence:
    """Return what the log shows; `ranks` are those of all processes of the run.

    Raises:
        LogError: its configuration has fields that this release does not know.
    """
    steps = step_growth(log)
    return Evidence(
        log=log,
        config=config_of(log),
        has_config=has_config(log),
        steps=tuple(steps),
        evaluations=tuple(evaluations(log, steps)),
        train_batches=tuple(train_batches(log)),
        ranks=_ranks_alike(log, ranks),
    )


def _ranks_alike(log: RunLog, ranks: Sequence[RunLog]) -> tuple[RunLog, ...]:
    """Return the logs of those that train the same model; nothing where that is one, or not known."""
    if log.run.model is None:
        return ()
    alike = tuple(other for other in ranks if other.run.model == log.run.model and other.steps)
    return tuple(sorted(alike, key=lambda other: other.run.rank)) if len(alike) > 1 and log in alike else ()


def train_batches(log: RunLog) -> list[BatchShape]:
    """Return the micro-batches whose forward pass ended, in order."""
    return [record.batch for record in records_of(log, *FORWARD_PHASES) if record.batch]


def step_growth(log: RunLog) -> list[StepGrowth]:
    """Return what each finished step left, in order, of the longest training where there are several."""
    records_by_step = {step: list(records) for step, records in groupby(_in_steps(log), key=lambda p: p.step)}
    failures = _caught_failures(log)
    longest_training = _longest_training(log)
    seen: set[int] = set()
    found = []
    for step in log.steps:
        records = records_by_step.get(step.step, [])
        if (records or step.left_bytes is not None) and step.training == longest_training:
            found.append(_growth_of(step, records, seen, failures.get(step.step, [])))
            seen |= _padded_lengths(records)
    return found


def _growth_of(
    step: StepRecord, records: Sequence[PhaseRecord], seen: set[int], failed_phases: Sequence[Phase]
) -> StepGrowth:
    """Return what a step left; `seen` are the padded lengths of the steps before."""
    lengths = _padded_lengths(records)
    left, forward_bytes, tokens = step.left_bytes, step.forward_bytes, step.padded_tokens
    if left is None:
        left = step.allocated_bytes - records[0].allocated_before_bytes
        forward_bytes = sum(left_bytes(record) for record in records if record.phase is Phase.FORWARD)
        tokens = sum(batch.padded_tokens for batch in _batches(records))
    return StepGrowth(
        step=step.step,
        epoch=step.epoch,
        floor_bytes=step.allocated_bytes,
        left_bytes=left,
        micro_steps=step.micro_steps,
        tokens=tokens,
        forward_bytes=forward_bytes,
        has_new_length=not lengths <= seen,
        has_new_longest=max(lengths, default=0) > max(seen, default=0),
        failed_phases=tuple(failed_phases),
    )


def _batches(records: Sequence[PhaseRecord]) -> list[BatchShape]:
    """Return the batches of a step's forward passes, or of all its phases where it has none."""
    forwards = [record for record in records if record.phase is Phase.FORWARD]
    return [record.batch for record in forwards or records if record.batch]


def _padded_lengths(records: Sequence[PhaseRecord]) -> set[int]:
    return {batch.padded_length for batch in _batches(records)}


def _in_steps(log: RunLog) -> list[PhaseRecord]:
    return [record for record in log.phases if record.phase in IN_STEP and record.step > 0]


def _longest_training(log: RunLog) -> int:
    """Return which training has the most steps, of a script that trains one model after another."""
    counts = Counter(step.training for step in log.steps)
    return counts.most_common(1)[0][0] if counts else 1


def _caught_failures(log: RunLog) -> dict[int, list[Phase]]:
    """Return the phases, by step, in which the allocator's count of failures rose."""
    found: dict[int, list[Phase]] = {}
    before = 0
    for record in log.phases:
        if record.after.num_ooms > before and record.phase in IN_STEP:
            found.setdefault(record.step, []).append(record.phase)
        before = max(before, record.after.num_ooms)
    return found


def evaluations(log: RunLog, steps: Sequence[StepGrowth]) -> list[Evaluation]:
    """Return the evaluations in order; a batch that went out of memory is not among them."""
    batches = records_of(log, Phase.EVAL)
    if log.fatal_oom is not None and log.fatal_oom.phase is Phase.EVAL:
        batches = batches[:-1]
    # a watched script's last batch lasts until something else happens, when what was evaluated is over and let go
    last_is_open = log.run.script and log.fatal_oom is None
    left = [step.left_bytes for step in steps[BURN_IN_STEPS:]]
    usual_left_bytes = float(np.median(left)) if left else 0.0
    found = []
    for step, group in groupby(batches, key=lambda record: record.step):
        ended = tuple(group)
        if last_is_open and len(ended) > 1:
            ended = ended[:-1]
        found.append(Evaluation(step, ended, _kept_bytes(log, steps, ended[0], usual_left_bytes)))
    return found


def _kept_bytes(
    log: RunLog, steps: Sequence[StepGrowth], first_batch: PhaseRecord, usual_left_bytes: float
) -> int | None:
    """Return what of an evaluation is still allocated one step later, over what steps usually leave."""
    following = next((step for step in steps if step.step > first_batch.step), None)
    if following is None:
        return None
    before = first_batch.allocated_before_bytes
    # at the same point of the loop, where there is one: its own input is there before the first batch begins
    same_step = (step.allocated_bytes for step in log.steps if step.step == first_batch.step)
    return int(following.floor_bytes - min(next(same_step, before), before) - max(0.0, usual_left_bytes))
