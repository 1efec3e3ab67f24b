"""The report for programs: a stable JSON object. Bytes are integers."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from memory_harness.harness.log.records import AgreementRecord
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.findings import Finding, FixResult
from memory_harness.probes.plan.choose import Limits, Option, Plan
from memory_harness.reports.levels import phase_levels
from memory_harness.reports.summary import ProbeResult

SCHEMA_VERSION = 1
BEGINS = '{\n  "schema_version": '
"""The file's first characters."""


def to_json(result: ProbeResult) -> dict[str, Any]:
    """Return the result as plain data."""
    run = result.as_configured.run
    return {
        "schema_version": SCHEMA_VERSION,
        "source": run.source,
        "verdict": result.verdict,
        "gpu": {"name": run.gpu_name, "budget_bytes": run.budget_bytes},
        "as_configured": run_to_json(result.as_configured),
        "with_fixes": None if result.with_fixes is None else run_to_json(result.with_fixes),
        "findings": [finding_to_json(finding) for finding in result.findings],
        "fixes": [_fix_to_json(fix) for fix in result.fixes],
        "agreements": [_agreement_to_json(fix.agreement) for fix in result.fixes if fix.agreement is not None],
        "plan": _plan_to_json(result.plan),
        "limits": _limits_to_json(result.limits),
        "other_counts": [{**count._asdict(), "outcome": str(count.outcome)} for count in result.other_counts],
        "fault": run.fault,
    }


def json_text(result: ProbeResult, training: dict[str, Any] | None = None) -> str:
    """Return the content of the file; `training` is a section of its own, where something was trained."""
    content = to_json(result) | ({} if training is None else {"training": training})
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"


def run_to_json(log: RunLog) -> dict[str, Any]:
    """Return how a run ended and what its phases took."""
    return {
        "outcome": str(log.outcome),
        "oom": _oom_to_json(log),
        "phases": {
            str(phase): {"peak_allocated_bytes": level.allocated_bytes, "peak_reserved_bytes": level.reserved_bytes}
            for phase, level in phase_levels(log).items()
        },
    }


def _oom_to_json(log: RunLog) -> dict[str, Any] | None:
    oom = log.fatal_oom
    if oom is None:
        return None
    named = {"step": oom.step, "total_steps": log.run.total_steps, "phase": str(oom.phase)}
    return {**named, "requested_bytes": oom.requested_bytes}


def finding_to_json(finding: Finding) -> dict[str, Any]:
    """Return a finding as plain data."""
    values = dataclasses.asdict(finding)
    values["phase"] = None if finding.phase is None else str(finding.phase)
    values["steps"] = None if finding.steps is None else list(finding.steps)
    names = ("cause", "severity", "title", "phase", "steps", "bytes", "where", "evidence", "explanation")
    return {name: values[name] for name in names}


def _fix_to_json(fix: FixResult) -> dict[str, Any]:
    return {
        "name": fix.name,
        "addresses": list(fix.addresses),
        "verified": fix.verified,
        "before_peak_bytes": fix.before_peak_bytes,
        "after_peak_bytes": fix.after_peak_bytes,
        "slowdown": fix.slowdown,
    }


def _agreement_to_json(agreement: AgreementRecord) -> dict[str, Any]:
    names = ("fix", "equivalence", "agrees", "on_recipe", "difference", "tolerance")
    return {name: getattr(agreement, name) for name in names}


def _plan_to_json(plan: Plan | None) -> dict[str, Any] | None:
    if plan is None:
        return None
    return {
        "goal": plan.goal,
        "headroom_bytes": plan.headroom_bytes,
        "as_configured": dataclasses.asdict(plan.as_configured),
        "chosen": _option_to_json(plan.chosen),
        "reasons": plan.reasons,
        "alternatives": [_option_to_json(option) for option in plan.alternatives],
    }


def _option_to_json(option: Option) -> dict[str, Any]:
    return {
        "fixes": list(option.fixes),
        **dataclasses.asdict(option.prediction),
        "predicted_slowdown": option.slowdown,
    }


def _limits_to_json(limits: Limits | None) -> dict[str, int] | None:
    return None if limits is None else dataclasses.asdict(limits)
