"""Runs that fit and train nothing."""

from memory_harness.harness.log.gradients import MAX_STEPS, described, useless_end, uselessness
from memory_harness.harness.log.records import Outcome, Phase
from memory_harness.probes.detectors.evidence import Evidence
from memory_harness.probes.findings import Finding


def zero_gradient(evidence: Evidence) -> Finding | None:
    """Find a run that ended in steps whose gradients were zero, or no numbers."""
    log = evidence.log
    steps = useless_end(log.steps)
    kind = uselessness(steps[-1]) if steps else None
    if kind is None or len(steps) < MAX_STEPS[kind] or log.outcome is not Outcome.ERROR:
        return None
    first, last = steps[0], steps[-1]
    what = "zero" if kind == "zero" else "no finite numbers"
    return Finding(
        cause="zero-gradient",
        severity="error",
        title=f"The adapter learns nothing: its gradients are {what}",
        explanation=f"In {described(steps)}. Every update leaves the adapter as it was, however long the run goes "
        "on, so it was stopped.",
        phase=Phase.OPTIMIZER,
        steps=(first.step, last.step),
        evidence={"num_steps": len(steps), "loss": _number(last.loss), "grad_norm": _number(last.grad_norm)},
    )


def _number(value: float | None) -> float | str:
    """Return the value, as text where it is none that JSON knows."""
    return str(value) if value is None or value != value else value
