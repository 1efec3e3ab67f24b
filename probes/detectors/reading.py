"""What can be read off a log or one of its records directly; what takes a pass over the whole log is in `evidence`."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from memory_harness.configs.schema import RunConfig, config_from_dict
from memory_harness.configs.validation import range_problems
from memory_harness.harness.log.errors import LogError
from memory_harness.harness.log.records import GROWING_TENSOR, OomRecord, Phase, PhaseRecord, SurvivorRecord
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.findings import Finding, Severity

TRAIN_PHASES = (Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER, Phase.STEP)

FORWARD_PHASES = (Phase.FORWARD, Phase.STEP)
"""Where a micro-batch is worked on; STEP in loops that name no parts."""
GRAPH_PHASES = (*FORWARD_PHASES, Phase.BACKWARD)
"""Where activations live."""
TIGHT_SHARE = 0.85
"""Share of the budget above which a peak is tight: reserved exceeded peak allocated by 7 to 17 % in the measured stock
recipe (1024 to 4096 tokens, H200), so that an allocated peak above 85 % can fill the card."""
LIBRARIES = ("torch/", "transformers/", "peft/", "bitsandbytes/", "accelerate/", "harness/", "lib/python")
"""Begin of the paths whose lines are not the user's."""
_FILE_AND_LINE = re.compile(r"[^\s:`()]+:\d+")
_COUNT = re.compile(r"\bof \d+")  # of what a container has in it


def has_config(log: RunLog) -> bool:
    """Return whether it is known what the run was configured to do; of a loop that is not ours it is not."""
    return bool(log.run.config)


def config_of(log: RunLog) -> RunConfig:
    """Return the configuration that the log was made with; the defaults, which say nothing, where it has none.

    Raises:
        LogError: it has fields that this release does not know, or values that it never writes.
    """
    try:
        config = config_from_dict(log.run.config)
    except TypeError as error:
        raise LogError(f"the log was written by another release: {error}") from None
    if problems := range_problems(config):
        raise LogError(f"the log holds a configuration that nothing ran with: {problems[0]}")
    return config


def records_of(log: RunLog, *phases: Phase) -> list[PhaseRecord]:
    """Return the records of these phases, in order."""
    return [record for record in log.phases if record.phase in phases]


def left_bytes(record: PhaseRecord) -> int:
    """Return what a phase left allocated."""
    return record.after.allocated_bytes - record.allocated_before_bytes


def peak_rise_bytes(record: PhaseRecord) -> int:
    """Return by how much a phase's peak exceeds what was there before."""
    return record.after.peak_allocated_bytes - record.allocated_before_bytes


def highest_peak(log: RunLog, *phases: Phase) -> int:
    """Return the highest allocated bytes in these phases, 0 where none of them ended."""
    return max((record.after.peak_allocated_bytes for record in records_of(log, *phases)), default=0)


def is_tight(log: RunLog) -> bool:
    """Return whether the run went out of memory or came close to it."""
    return log.fatal_oom is not None or log.peak_allocated_bytes >= TIGHT_SHARE * log.run.budget_bytes


def fits_without(log: RunLog, num_bytes: int) -> bool:
    """Return whether the request that failed would have fitted had these bytes not been taken."""
    oom = log.fatal_oom
    return oom is not None and oom.allocated_bytes - num_bytes + oom.requested_bytes <= oom.budget_bytes


def severity_without(log: RunLog, num_bytes: int, *phases: Phase) -> Severity:
    """Return `error` where the run died in one of the phases, any without, and only for these bytes."""
    oom = log.fatal_oom
    died_there = oom is not None and (not phases or oom.phase in phases)
    return "error" if died_there and fits_without(log, num_bytes) else "warning"


def survivors_of(log: RunLog, unit: str = "step") -> list[SurvivorRecord]:
    """Return what the closer look found of a unit, the most bytes first."""
    found = [survivor for survivor in log.survivors if survivor.unit == unit]
    return sorted(found, key=lambda survivor: -survivor.bytes_per_step)


def survivors_at_failure(log: RunLog, unit: str) -> list[SurvivorRecord]:
    """Return what was found of a unit when the allocation failed that ended the run, the most bytes first."""
    oom = log.fatal_oom
    if oom is None:
        return []
    return [found for found in survivors_of(log, unit) if (found.step, found.phase) == (oom.step, oom.phase)]


def error_at_failure(
    log: RunLog,
    found: SurvivorRecord,
    num_bytes: int,
    *,
    cause: str,
    title: str,
    explanation: str,
    evidence: dict[str, Any],
) -> Finding | None:
    """Return the error that a run died of what was found when an allocation failed; None where it would have anyway.

    Args:
        log: of the run.
        found: one of `survivors_at_failure`, whose line is told.
        num_bytes: that there would have been without it.
        cause: id of the cause.
        title: of the finding.
        explanation: of the finding.
        evidence: numbers that it rests on.
    """
    if severity_without(log, num_bytes) != "error":
        return None
    return Finding(
        cause=cause,
        severity="error",
        title=title,
        explanation=explanation,
        phase=found.phase,
        steps=(found.step, found.step),
        bytes=num_bytes,
        where=line_of(found),
        evidence=evidence,
    )


def line_of(survivor: SurvivorRecord | None) -> str | None:
    """Return `file:line` of what holds a survivor, or of what made it; the user's own line where there is one."""
    if survivor is None:
        return None
    holding, making = _FILE_AND_LINE.findall(survivor.holder), _FILE_AND_LINE.findall(survivor.site)
    lines = [*reversed(holding), *reversed(making)]
    users = [line for line in lines if not line.startswith(LIBRARIES)]
    return next(iter(users or lines), None)


def how_it_is_kept(survivor: SurvivorRecord | None) -> str:
    """Return a sentence, after a space, on which line made a survivor and which line of what keeps it."""
    if survivor is None or not survivor.holder:
        return ""
    made = f"made at {survivor.site}{_quoted(survivor.made_by)} and " if survivor.site else ""
    kept = survivor.kept_by if survivor.kept_by != survivor.made_by else ""
    holder = survivor.holder.removeprefix(f"{GROWING_TENSOR}: ")
    larger = ", which gets a larger one each time" if holder != survivor.holder else ""
    counted = f", as it was in step {survivor.step}" if _COUNT.search(holder) else ""
    return f" Most of it is {made}kept by {holder}{_quoted(kept)}{larger}{counted}."


def _quoted(source: str) -> str:
    return f" `{source}`" if source else ""


def main_survivor(survivors: Sequence[SurvivorRecord]) -> SurvivorRecord | None:
    """Return the survivor with the most bytes, of those that lead to the user's own code where any does."""
    for survivor in survivors:
        line = line_of(survivor)
        if line is not None and not line.startswith(LIBRARIES):
            return survivor
    return next(iter(survivors), None)


def line_of_unit(log: RunLog, unit: str) -> str | None:
    """Return `file:line` of what holds the most of what a unit leaves."""
    return line_of(main_survivor(survivors_of(log, unit)))


def setting_at(log: RunLog, *names: str) -> str | None:
    """Return `file:line` by which a watched script gives the first of some settings that it gives."""
    return next((log.run.settings_at[name] for name in names if name in log.run.settings_at), None)


def called_at(records: Iterable[PhaseRecord]) -> str | None:
    """Return `file:line` that called the model in the first of the phases that knows; only watched scripts do."""
    for record in records:
        if record.forward is not None and record.forward.where:
            return record.forward.where
    return None


def made_in_forward(log: RunLog, least_bytes: int) -> str | None:
    """Return the user's `file:line` behind the most of what lived at the peak of a forward pass.

    None where a backward pass did not fail, or no line made as much as is asked for.
    """
    oom = log.fatal_oom
    if oom is None or oom.phase is not Phase.BACKWARD:
        return None
    made: Counter[str] = Counter()
    for record in log.peaks_seen:
        if record.phase is Phase.FORWARD:
            made = Counter()
            for stack, num_bytes in record.stacks.items():
                made[_users_line_in(stack)] += num_bytes
    del made[""]
    line, num_bytes = next(iter(made.most_common(1)), ("", 0))
    return line if num_bytes >= least_bytes else None


def _users_line_in(stack: str) -> str:
    """Return the innermost line of a folded stack that is no library's; empty where there is none."""
    lines = [line for line in _FILE_AND_LINE.findall(stack.replace(";", " ")) if not line.startswith(LIBRARIES)]
    return lines[-1] if lines else ""


def dies_of_replies(log: RunLog) -> bool:
    """Return whether what failed worked on several replies, generated since the optimizer's last step."""
    oom = log.fatal_oom
    if oom is None or oom.batch is None or oom.batch.batch_size < 2:
        return False
    for record in reversed(log.phases):
        if record.phase in (Phase.OPTIMIZER, Phase.GENERATE):
            return record.phase is Phase.GENERATE
    return False


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
