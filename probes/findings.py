"""What the probe says: findings (a cause with its evidence), results of fixes, runs with other numbers of samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from memory_harness.configs.model_rules import model_problems
from memory_harness.configs.schema import RunConfig
from memory_harness.configs.sharding import sharding_problems
from memory_harness.configs.training import training_problems
from memory_harness.harness.log.records import AgreementRecord, Outcome, Phase

Severity = Literal["error", "warning", "info"]
Equivalence = Literal["exact", "numerical", "reordered", "data"]

UNEXPLAINED_GROWTH = "unexplained-growth"


@dataclass(frozen=True)
class Finding:
    """One cause that the evidence supports.

    `error`: it ended the run or will end it. `warning`: it costs memory that matters here. `info`: it explains a
    number.
    """

    cause: str
    """an id of the cause table, or `unexplained-growth`"""
    severity: Severity
    title: str
    """one line a newcomer understands"""
    explanation: str
    """what happens and why, arithmetic spelled out"""
    phase: Phase | None = None
    steps: tuple[int, int] | None = None
    """first and last optimizer step that show it"""
    bytes: int | None = None
    where: str | None = None
    """`file:line` of the code that made or holds the memory"""
    evidence: dict[str, int | float | str] = field(default_factory=dict)


def first_error(findings: Iterable[Finding]) -> Finding | None:
    """Return the first finding that is an error: in a run that ended, growth without end."""
    return next((finding for finding in findings if finding.severity == "error"), None)


@dataclass(frozen=True)
class Fix:
    """A change of the configuration that removes a cause."""

    name: str
    title: str
    addresses: tuple[str, ...]
    """cause ids"""
    equivalence: Equivalence
    """what stays equal: `exact` bits, `numerical` up to rounding, `reordered` the samples, `data` nothing"""
    change: Callable[[RunConfig], RunConfig | None]
    """returns None where it would change nothing, as it is already in force"""
    slowdown: float | None
    """measured seconds of a training step over those without it, for the default recipe; None: each plan predicts it"""
    cost: str
    """what it costs besides, in a few words"""

    def apply(self, config: RunConfig) -> RunConfig | None:
        """Return the configuration with it; None where it would change nothing, or does not go with the rest."""
        changed = self.change(config)
        if changed is None or model_problems(changed) or training_problems(changed) or sharding_problems(changed):
            return None
        return changed


def set_fields(fields: Mapping[str, Any]) -> Callable[[RunConfig], RunConfig | None]:
    """Return the `change` of a fix that sets these fields, whatever they were."""

    def apply(config: RunConfig) -> RunConfig | None:
        changed = config.with_fields(**fields)
        return None if changed == config else changed

    return apply


@dataclass(frozen=True)
class FixResult:
    """A fix after its re-run in a fresh process. `slowdown` is measured, so None where the run was simulated."""

    name: str
    title: str
    addresses: tuple[str, ...]
    equivalence: Equivalence
    verified: bool
    before_peak_bytes: int
    after_peak_bytes: int
    applied: bool
    """part of the passing set; False for one that was tried and not needed or did not help"""
    note: str = ""
    slowdown: float | None = None
    agreement: AgreementRecord | None = None
    """how the losses agree"""
    reason: str = ""
    """why the plan has it, where there is a plan"""
    proved_with: tuple[str, ...] = ()
    """other fixes of the same re-run: its peaks and its time are of all of them"""


class OtherCount(NamedTuple):
    """How the same run ends with another number of samples."""

    samples: int
    step: int
    total_steps: int
    outcome: Outcome
