"""The report for programs: a stable JSON object, which `report.schema.json` describes. Bytes are integers."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any

from memory_harness.configs import printable
from memory_harness.configs.release import release
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.findings import Finding
from memory_harness.probes.plan.choose import Option, Plan
from memory_harness.reports.layers import memory_to_json
from memory_harness.reports.levels import phase_levels
from memory_harness.reports.next_step import next_step
from memory_harness.reports.outside import outside_to_json
from memory_harness.reports.summary import NextStep, ProbeResult

SCHEMA_VERSION = 1
FINDING = "cause severity title phase steps bytes where evidence explanation"
FIX = "name addresses verified before_peak_bytes after_peak_bytes slowdown proved_with"
CAUGHT = "step phase requested_bytes where caught_at"
AGREEMENT = "fix equivalence agrees on_recipe difference tolerance"


def head(report: str, step: NextStep | None) -> dict[str, Any]:
    """Return what every report begins with: of which kind it is, who wrote it and when, what to do next."""
    return {
        "schema_version": SCHEMA_VERSION,
        "report": report,
        "release": release(),
        "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "next": step and step._asdict(),
    }


def to_json(result: ProbeResult) -> dict[str, Any]:
    """Return the result as plain data."""
    run = result.as_configured.run
    gpu = {"name": run.gpu_name, "budget_bytes": run.budget_bytes, "each_reserved_bytes": list(run.gpu_peaks)}
    step = None if result.goes_on else (result.next_step or next_step(result))
    return {
        **head("run", step),
        "started_at": run.started_at,
        "versions": run.environment,
        "configuration": run.config or None,
        "source": run.source,
        "unreadable_lines": result.as_configured.num_unreadable_lines,
        "verdict": result.verdict,
        "gpu": gpu,
        "as_configured": run_to_json(result.as_configured),
        "with_fixes": result.with_fixes and run_to_json(result.with_fixes),
        "findings": [finding_to_json(finding) for finding in result.findings],
        "fixes": [_fields(fix, FIX) for fix in result.fixes],
        "agreements": [_fields(fix.agreement, AGREEMENT) for fix in result.fixes if fix.agreement is not None],
        "plan": result.plan and _plan_to_json(result.plan),
        "limits": result.limits and dataclasses.asdict(result.limits),
        "other_counts": [count._asdict() for count in result.other_counts],
        "fault": run.fault,
    }


def json_text(result: ProbeResult, **sections: dict[str, Any] | None) -> str:
    """Return the content of the file; `sections` are further ones, such as `training` where something was trained."""
    content = to_json(result)
    content |= {name: section for name, section in sections.items() if section is not None}
    return printable.json_text(content)


def run_to_json(log: RunLog) -> dict[str, Any]:
    """Return how a run ended and what its phases took."""
    phases = {}
    for phase, level in phase_levels(log).items():
        phases[phase] = {"peak_allocated_bytes": level.allocated_bytes, "peak_reserved_bytes": level.reserved_bytes}
    oom = None
    if log.fatal_oom is not None:
        oom = {"step": log.fatal_oom.step, "total_steps": log.run.total_steps, "phase": log.fatal_oom.phase}
        oom["requested_bytes"] = log.fatal_oom.requested_bytes
    caught = []
    for failure, is_done in log.caught_ooms:
        caught.append({**_fields(failure, CAUGHT), "done_again": is_done})
    return {
        "outcome": log.outcome,
        "oom": oom,
        "caught": caught,
        "phases": phases,
        "memory": memory_to_json(log),
        "outside": outside_to_json(log),
    }


def finding_to_json(finding: Finding) -> dict[str, Any]:
    """Return a finding as plain data."""
    return _fields(finding, FINDING)


def _fields(record: object, names: str) -> dict[str, Any]:
    """Return the named fields of a record; a tuple is a list, as in what is read from JSON."""
    found = {}
    for name in names.split():
        value = getattr(record, name)
        found[name] = list(value) if isinstance(value, tuple) else value
    return found


def _plan_to_json(plan: Plan) -> dict[str, Any]:
    return {
        "goal": plan.goal,
        "headroom_bytes": plan.headroom_bytes,
        "as_configured": dataclasses.asdict(plan.as_configured),
        "chosen": _option_to_json(plan.chosen),
        "recompute": plan.recompute,
        "reasons": plan.reasons,
        "alternatives": [_option_to_json(option) for option in plan.alternatives],
    }


def _option_to_json(option: Option) -> dict[str, Any]:
    prediction = dataclasses.asdict(option.prediction)
    return {"fixes": list(option.fixes), **prediction, "predicted_slowdown": option.slowdown}
