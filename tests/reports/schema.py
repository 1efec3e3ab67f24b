"""The published schema of reports for programs."""

import json

import jsonschema

from tests.e2e.commands import ROOT

PUBLISHED = json.loads((ROOT / "reports" / "report.schema.json").read_text(encoding="utf-8"))


def check(report, kind):
    """Check a report of a kind against the schema, which has to describe all that it holds."""
    jsonschema.validate(report, PUBLISHED)
    assert report["report"] == kind
    described = PUBLISHED["$defs"]["run_report" if kind == "run" else kind]["properties"]
    assert set(report) - {"written_by"} <= set(described), "describe it in reports/report.schema.json"
    assert report["next"]["command"]
