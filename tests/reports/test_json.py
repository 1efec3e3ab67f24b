"""The JSON report against its schema."""

import json
from dataclasses import replace
from typing import Any

import jsonschema
import pytest

from memory_harness.reports.json import json_text, to_json
from memory_harness.reports.summary import result_of_log
from tests.builders import as_published_oom
from tests.reports import schema
from tests.reports.html.test_page import RESULTS
from tests.reports.results import FITS, fixed_result, planned_result, unfixed_result

PEAKS = {"peak_allocated_bytes": int, "peak_reserved_bytes": int}
OOM = {"step": int, "total_steps": int, "phase": str, "requested_bytes": int}
CAUGHT = {
    "step": int,
    "phase": str,
    "requested_bytes": int,
    "where": (str, None),
    "caught_at": (str, None),
    "done_again": bool,
}
RUN = {
    "outcome": str,
    "oom": (OOM, None),
    "caught": [CAUGHT],
    "phases": "phases",
    "memory": dict,
    "outside": (dict, None),
}
PREDICTION = {"passes": bool, "peak_allocated_bytes": int, "peak_reserved_bytes": int}
OPTION = {"fixes": [str], **PREDICTION, "predicted_slowdown": float}
SCHEMA = {
    "schema_version": int,
    "report": str,
    "release": str,
    "written_at": str,
    "next": ({"words": str, "command": str}, None),
    "started_at": str,
    "versions": dict,
    "configuration": (dict, None),
    "source": str,
    "unreadable_lines": int,
    "verdict": str,
    "gpu": {"name": str, "budget_bytes": int, "each_reserved_bytes": [int]},
    "as_configured": RUN,
    "with_fixes": (RUN, None),
    "findings": [
        {
            "cause": str,
            "severity": str,
            "title": str,
            "phase": (str, None),
            "steps": ([int], None),
            "bytes": (int, None),
            "where": (str, None),
            "evidence": dict,
            "explanation": str,
        }
    ],
    "fixes": [
        {
            "name": str,
            "addresses": [str],
            "verified": bool,
            "before_peak_bytes": int,
            "after_peak_bytes": int,
            "slowdown": (float, None),
            "proved_with": [str],
        }
    ],
    "agreements": [
        {
            "fix": str,
            "equivalence": str,
            "agrees": bool,
            "on_recipe": bool,
            "difference": (float, None),
            "tolerance": (float, None),
        }
    ],
    "plan": (
        {
            "goal": str,
            "headroom_bytes": int,
            "as_configured": PREDICTION,
            "chosen": OPTION,
            "recompute": str,
            "reasons": dict,
            "alternatives": [OPTION],
        },
        None,
    ),
    "limits": ({"micro_batch": int, "length": int, "batch_tokens": int, "multiple_of": int}, None),
    "other_counts": [{"samples": int, "step": int, "total_steps": int, "outcome": str}],
    "fault": (str, None),
}


def conforms(value: Any, schema: Any) -> bool:
    if schema == "phases":
        return all(conforms(peaks, PEAKS) for peaks in value.values())
    if isinstance(schema, tuple):
        return value is None or conforms(value, schema[0])
    if isinstance(schema, list):
        return isinstance(value, list) and all(conforms(item, schema[0]) for item in value)
    if isinstance(schema, dict):
        return list(value) == list(schema) and all(conforms(value[name], schema[name]) for name in schema)
    return type(value) is schema


@pytest.mark.parametrize(
    "result",
    [
        fixed_result(),
        planned_result(),
        unfixed_result(),
        result_of_log(FITS),
        result_of_log(as_published_oom()),
        result_of_log(replace(FITS, begins=[], phases=[], steps=[], evals=[], end=None)),
    ],
    ids=["fixed", "planned", "unfixed", "fits", "replayed", "empty run"],
)
def test_the_report_conforms_and_survives_json(result):
    report = to_json(result)
    settings = json.loads(json.dumps(report["configuration"]))  # lists where the schema has tuples
    report = {**report, "configuration": settings}
    assert json.loads(json.dumps(report)) == report
    assert conforms(json.loads(json.dumps(report)), SCHEMA)


def test_the_published_failure():
    report = to_json(fixed_result(samples=4000))
    assert (report["source"], report["verdict"]) == ("simulated", "pass_with_fixes")
    oom = {"step": 1600, "total_steps": 3200, "phase": "EVAL", "requested_bytes": 8405385216}
    assert (report["as_configured"]["outcome"], report["as_configured"]["oom"]) == ("oom", oom)
    assert (report["with_fixes"]["outcome"], report["with_fixes"]["oom"]) == ("completed", None)
    finding = report["findings"][0]
    assert (finding["cause"], finding["phase"], finding["steps"]) == ("eval-batch-logits", "EVAL", [1600, 1600])
    assert finding["bytes"] == 8405385216
    assert {count["outcome"] for count in report["other_counts"]} == {"oom"}


@pytest.mark.parametrize("name", RESULTS)
def test_every_kind_of_report_is_as_the_published_schema_says(name):
    recipe, training = {"remarks": []}, {"outcome": "completed"}
    report = json.loads(json_text(RESULTS[name], recipe=recipe, training=training, snapshot=None))
    schema.check(report, "run")


def test_what_is_no_report_is_told_by_the_schema():
    report = to_json(fixed_result())
    for broken in ({"verdict": "maybe"}, {"gpu": {"name": "T4"}}, {"findings": [{"cause": "x"}]}, {"next": "run it"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(json.loads(json.dumps(report | broken)), schema.PUBLISHED)


def test_what_trains_at_once_names_no_next_command():
    assert to_json(replace(fixed_result(), goes_on=True))["next"] is None
