"""What a test allows itself: its markers, whether a run kept to them, and what is said where it did not."""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from memory_harness.configs.cards import Card
from memory_harness.configs.errors import ConfigError
from memory_harness.configs.targets import budget_bytes_of, check_device
from memory_harness.configs.units import format_apart, format_bytes
from memory_harness.harness.log.allocator_sizes import segment_size
from memory_harness.harness.log.records import Phase, phase_named
from memory_harness.probes.budgets.probe import Measured, Target
from memory_harness.probes.findings import first_error

FIXTURE = "memory_probe"

WARM_UP_STEPS = 2
"""First steps in which memory may appear for good: optimizer states, workspaces, gradients."""

SECTION_WIDTH = 100


@dataclass(frozen=True)
class Budget:
    """`memory_budget`: most that the test, or one phase of what it runs, may take."""

    limit_bytes: int
    phase: Phase | None
    device: str
    gpu: str | None
    dry_run: bool = False

    @property
    def target(self) -> Target:
        """The limit of a phase does not bound the others: the card does."""
        return Target(self.device, self.gpu, self.limit_bytes if self.phase is None else None, self.dry_run)


@dataclass(frozen=True)
class LeakLimit:
    """`memory_leak`: most that may stay allocated of so many repetitions of the test."""

    limit_bytes: int
    steps: int
    device: str
    gpu: str | None

    @property
    def target(self) -> Target:
        """A leak has the whole card to grow in."""
        return Target(self.device, self.gpu)


Limit = Budget | LeakLimit


def memory_budget(
    limit: str | int,
    *,
    phase: str | None = None,
    device: str = "auto",
    gpu: str | None = None,
    dry_run: bool = False,
) -> Budget:
    """Return the marker's meaning. Raises ConfigError where a value is not usable."""
    card = check_device(device, gpu)
    if dry_run and device == "cuda":
        raise ConfigError("dry_run: runs on no GPU; leave device='cuda' out")
    return Budget(_size(limit, card), None if phase is None else phase_named(phase), device, gpu, dry_run)


def memory_leak(limit: str | int, *, steps: int = 20, device: str = "auto", gpu: str | None = None) -> LeakLimit:
    """Return the marker's meaning. Raises ConfigError where a value is not usable."""
    card = check_device(device, gpu)
    if not isinstance(steps, int) or steps <= WARM_UP_STEPS:
        raise ConfigError(f"steps {steps!r}: not usable (allowed: {WARM_UP_STEPS + 1} or more; the first warm up)")
    return LeakLimit(_size(limit, card), steps, device, gpu)


READERS: dict[str, Callable[..., Limit]] = {"memory_budget": memory_budget, "memory_leak": memory_leak}
"""what reads the arguments of each marker"""


def _size(limit: str | int, card: Card | None) -> int:
    num_bytes = budget_bytes_of(limit, card, name="limit")
    if num_bytes is None:
        raise ConfigError("limit None: a size is needed, such as '14.4 GiB'")
    return num_bytes


def problems_of(limits: Sequence[Limit], runs: Sequence[Measured]) -> list[str]:
    """Return what is to be said of a test whose runs went beyond its limits, or that has limits and ran nothing."""
    problems = []
    for run in runs:
        for limit in limits:
            problem = exceeded(limit, run)
            if problem is not None:
                problems.append(problem)
    if limits and not runs:
        problems.append(f"nothing was measured: use {FIXTURE}.run, .call or .record")
    return problems


def exceeded(limit: Limit, measured: Measured) -> str | None:
    """Return by what a run goes beyond the limit, in one line, or None where it keeps to it."""
    if isinstance(limit, LeakLimit):
        return _leaked(limit, measured)
    oom = measured.log.fatal_oom
    if oom is not None and limit.phase in (None, oom.phase):
        return _out_of_memory_text(limit.limit_bytes, measured)
    if oom is not None:
        return f"{_out_of_memory_text(oom.budget_bytes, measured)}, before {limit.phase} could be judged"
    if limit.phase is None:
        return _grows(measured)
    allocated = measured.peaks.get(limit.phase)
    if allocated is None:
        return f"limited {limit.phase} to {format_bytes(limit.limit_bytes)}, but no phase {limit.phase} was recorded"
    return _beyond(limit.limit_bytes, limit.phase, allocated) if allocated > limit.limit_bytes else None


def _grows(measured: Measured) -> str | None:
    """Return what grows without end in a run that has ended: it would go beyond any limit in a longer one."""
    finding = first_error(measured.findings)
    if finding is None:
        return None
    where = f", at {finding.where}" if finding.where else ""
    return f"grows without end ({finding.cause}): {finding.title}{where}"


def _out_of_memory_text(limit_bytes: int, measured: Measured) -> str:
    oom = measured.log.fatal_oom
    assert oom is not None
    needed = oom.allocated_bytes + oom.requested_bytes
    if needed > limit_bytes:
        return _beyond(limit_bytes, oom.phase, needed)
    return (
        f"limited to {format_bytes(limit_bytes)} but {oom.phase} could not reserve "
        f"{format_bytes(segment_size(oom.requested_bytes))} more for {format_bytes(oom.requested_bytes)}: "
        f"{format_bytes(oom.allocated_bytes)} is allocated, {format_bytes(oom.reserved_bytes)} reserved"
    )


def _beyond(limit_bytes: int, phase: Phase, allocated: int) -> str:
    limit_text, allocated_text = format_apart(limit_bytes, allocated)
    return f"limited to {limit_text} but {phase} allocated {allocated_text}"


def _leaked(limit: LeakLimit, measured: Measured) -> str | None:
    if measured.log.fatal_oom is not None:
        return _out_of_memory_text(measured.log.run.budget_bytes, measured)
    allocated = [step.allocated_bytes for step in measured.log.steps[WARM_UP_STEPS - 1 :]]
    num_steps = len(allocated) - 1
    if num_steps < 1 or allocated[-1] - allocated[0] <= limit.limit_bytes:
        return None
    limit_text, grown_text = format_apart(limit.limit_bytes, allocated[-1] - allocated[0])
    return f"limited to a leak of {limit_text} but {grown_text} stayed allocated over {num_steps} steps"


def section_text(measured: Measured) -> str:
    """Return what a failed test shows of a run: the phases, and the causes that the detectors found."""
    run = measured.log.run
    how = "measured" if run.source == "cuda" else "simulated"
    lines = [f"{run.gpu_name}, {how}, {format_bytes(run.budget_bytes)} for PyTorch", ""]
    lines.append(f"{'':<12}{'allocated':>14}{'reserved':>14}")
    reserved = measured.log.peaks()
    for phase, allocated in measured.peaks.items():
        size = format_bytes(reserved[phase].peak_reserved_bytes) if phase in reserved else ""
        lines.append(f"{phase:<12}{format_bytes(allocated):>14}{size:>14}")
    for finding in (f for f in measured.findings if f.severity != "info"):
        lines += ["", f"{finding.cause}: {finding.title}"]
        lines += textwrap.wrap(finding.explanation, SECTION_WIDTH, initial_indent="  ", subsequent_indent="  ")
        if finding.where:
            lines.append(f"  at {finding.where}")
    return "\n".join(lines)
