"""Detectors: one file per family of causes, each a function from a `RunLog` to findings. Register it in `DETECTORS`."""

from __future__ import annotations

import dataclasses

from harness.runlog import RunLog
from probes.analysis import analyse_failure
from probes.detectors.configuration import kbit_upcast
from probes.detectors.lengths import fragmentation, longest_sample, padding_to_max
from probes.detectors.logits import eval_batch_logits, logits_fp32_copies
from probes.detectors.unexplained import unexplained_oom
from probes.findings import Detector, Finding

DETECTORS: dict[str, Detector] = {
    "eval-batch-logits": eval_batch_logits,
    "fragmentation": fragmentation,
    "longest-sample": longest_sample,
    "logits-fp32-copies": logits_fp32_copies,
    "kbit-upcast": kbit_upcast,
    "padding-to-max": padding_to_max,
}
"""By cause id. A run dies of one cause: where two detectors claim an error, the first in this order keeps it."""

_RANKS = {"error": 0, "warning": 1, "info": 2}


def detect(log: RunLog) -> list[Finding]:
    """Return all findings, errors first; at most one error, `unexplained-growth` where the run died of nothing known.

    Causes whose arithmetic is exact go first, then what made the request unusual, last what the tensor was for.
    """
    findings = [finding for detector in DETECTORS.values() for finding in detector(log)]
    errors = [finding for finding in findings if finding.severity == "error"]
    fatal = [_with_failure(finding, log) for finding in errors[:1] or unexplained_oom(log)]
    contributing = [dataclasses.replace(finding, severity="warning") for finding in errors[1:]]
    others = [finding for finding in findings if finding.severity != "error"]
    return [*fatal, *sorted(contributing + others, key=lambda finding: _RANKS[finding.severity])]


def _with_failure(finding: Finding, log: RunLog) -> Finding:
    """Add what the failed request was for and what lived then; the finding's own evidence goes first."""
    failure = analyse_failure(log)
    return finding if failure is None else dataclasses.replace(finding, evidence=failure.evidence | finding.evidence)
