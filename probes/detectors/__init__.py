"""Detectors: one file per family of causes, each from a `RunLog` to findings. Never imports torch."""

from __future__ import annotations

import dataclasses
from functools import partial

from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.detectors.analysis import analyse_failure
from memory_harness.probes.detectors.configuration import kbit_upcast
from memory_harness.probes.detectors.evaluation import (
    eval_leftover,
    eval_use_cache,
    eval_with_grad,
    logits_hoarded,
    logits_hoarded_host,
    metric_never_reset,
    outputs_hoarded,
)
from memory_harness.probes.detectors.gradients import zero_gradient
from memory_harness.probes.detectors.growth import GROWTH_CAUSES, growth_finding, unexplained_growth
from memory_harness.probes.detectors.lengths import fragmentation, longest_sample, padding_to_max
from memory_harness.probes.detectors.logits import eval_batch_logits, logits_fp32_copies
from memory_harness.probes.detectors.peaks import attention_math_fallback, bucketing_raises_peak, truncation_missing
from memory_harness.probes.detectors.saving import (
    adapters_accumulate,
    kv_cache_held,
    merge_dequantises,
    resume_on_gpu,
    save_doubles,
)
from memory_harness.probes.detectors.setup import (
    checkpointing_lost,
    head_trainable,
    host_leak,
    old_model_alive,
    optimizer_lazy,
    other_process,
)
from memory_harness.probes.detectors.unexplained import unexplained_oom
from memory_harness.probes.findings import Detector, Finding

DETECTORS: dict[str, Detector] = {
    "zero-gradient": zero_gradient,
    "checkpointing-lost": checkpointing_lost,
    "eval-with-grad": eval_with_grad,
    "other-process": other_process,
    "old-model-alive": old_model_alive,
    "head-trainable": head_trainable,
    "resume-on-gpu": resume_on_gpu,
    "adapters-accumulate": adapters_accumulate,
    **{cause: partial(growth_finding, cause) for cause in GROWTH_CAUSES},
    "kv-cache-held": kv_cache_held,
    "logits-hoarded": logits_hoarded,
    "outputs-hoarded": outputs_hoarded,
    "metric-never-reset": metric_never_reset,
    "logits-hoarded-host": logits_hoarded_host,
    "eval-leftover": eval_leftover,
    "save-doubles": save_doubles,
    "merge-dequantises": merge_dequantises,
    "truncation-missing": truncation_missing,
    "bucketing-raises-peak": bucketing_raises_peak,
    "attention-math-fallback": attention_math_fallback,
    "eval-batch-logits": eval_batch_logits,
    "eval-use-cache": eval_use_cache,
    "fragmentation": fragmentation,
    "longest-sample": longest_sample,
    "optimizer-lazy": optimizer_lazy,
    "logits-fp32-copies": logits_fp32_copies,
    "kbit-upcast": kbit_upcast,
    "padding-to-max": padding_to_max,
    "host-leak": host_leak,
}
"""By cause id. A run dies of one cause: where two detectors claim an error, the first in this order keeps it.

Causes that the log proves and growth that took the room come before what merely asked for the last bytes.
"""

_RANKS = {"error": 0, "warning": 1, "info": 2}


def detect(log: RunLog) -> list[Finding]:
    """Return all findings, errors first; at most one error, `unexplained-growth` where the run died of nothing known.

    Causes whose arithmetic is exact go first, then what made the request unusual, last what the tensor was for.
    """
    # growth that took the room goes before what merely asked for the last bytes, even where its cause is not known
    findings = [*unexplained_growth(log), *(finding for detector in DETECTORS.values() for finding in detector(log))]
    errors = [finding for finding in findings if finding.severity == "error"]
    fatal = [_with_failure(finding, log) for finding in errors[:1] or unexplained_oom(log)]
    contributing = [dataclasses.replace(finding, severity="warning") for finding in errors[1:]]
    others = [finding for finding in findings if finding.severity != "error"]
    return [*fatal, *sorted(contributing + others, key=lambda finding: _RANKS[finding.severity])]


def _with_failure(finding: Finding, log: RunLog) -> Finding:
    """Add what the failed request was for and what lived then; the finding's own evidence goes first."""
    failure = analyse_failure(log)
    return finding if failure is None else dataclasses.replace(finding, evidence=failure.evidence | finding.evidence)
