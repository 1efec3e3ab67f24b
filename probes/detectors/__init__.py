"""Detectors: one file per family of causes, each from what a log shows to findings. Never imports torch."""

import dataclasses
from collections.abc import Sequence

from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.detectors.analysis import analyse_failure, unexplained_oom
from memory_harness.probes.detectors.distributed import (
    communication_buffers,
    device_map_imbalance,
    rank_gathers_state,
    rank_imbalance,
    ranks_on_one_gpu,
)
from memory_harness.probes.detectors.evaluation import (
    eval_leftover,
    eval_use_cache,
    eval_with_grad,
    logits_hoarded_host,
    outputs_kept,
)
from memory_harness.probes.detectors.evidence import Detector, gather
from memory_harness.probes.detectors.gradients import zero_gradient
from memory_harness.probes.detectors.growth import growth_in_training
from memory_harness.probes.detectors.lengths import fragmentation, longest_sample, padding_to_max
from memory_harness.probes.detectors.logits import eval_batch_logits, logits_fp32_copies
from memory_harness.probes.detectors.optimizer_states import optimizer_states_twice
from memory_harness.probes.detectors.outside import graph_pools, other_process, outside_growth, pinned_cache
from memory_harness.probes.detectors.peaks import attention_math_fallback, bucketing_raises_peak, truncation_missing
from memory_harness.probes.detectors.rollouts import group_logits, rollouts_kept
from memory_harness.probes.detectors.saving import (
    adapters_accumulate,
    checkpoints_kept,
    kv_cache_held,
    merge_dequantises,
    resume_on_gpu,
    save_doubles,
)
from memory_harness.probes.detectors.setup import (
    checkpointing_lost,
    experts_not_quantised,
    head_trainable,
    host_leak,
    kbit_upcast,
    old_model_alive,
    optimizer_lazy,
    weights_not_quantised,
)
from memory_harness.probes.detectors.states import model_states_exceed_budget
from memory_harness.probes.findings import UNEXPLAINED_GROWTH, Finding

DETECTORS: dict[str, Detector] = {
    UNEXPLAINED_GROWTH: growth_in_training,
    "zero-gradient": zero_gradient,
    "checkpointing-lost": checkpointing_lost,
    "eval-with-grad": eval_with_grad,
    "ranks-on-one-gpu": ranks_on_one_gpu,
    "other-process": other_process,
    "outside-growth": outside_growth,
    "old-model-alive": old_model_alive,
    "head-trainable": head_trainable,
    "resume-on-gpu": resume_on_gpu,
    "optimizer-states-twice": optimizer_states_twice,
    "adapters-accumulate": adapters_accumulate,
    "exception-holds-frames": growth_in_training,
    "oom-in-backward": growth_in_training,
    "reference-cycle": growth_in_training,
    "autocast-cache": growth_in_training,
    "recompile-per-shape": growth_in_training,
    "epoch-hoard": growth_in_training,
    "hook-holds-activations": growth_in_training,
    "retained-graph": growth_in_training,
    "tensors-logged": growth_in_training,
    "kv-cache-held": kv_cache_held,
    "rollouts-kept": rollouts_kept,
    "logits-hoarded": outputs_kept,
    "outputs-hoarded": outputs_kept,
    "metric-never-reset": outputs_kept,
    "logits-hoarded-host": logits_hoarded_host,
    "eval-leftover": eval_leftover,
    "rank-gathers-state": rank_gathers_state,
    "save-doubles": save_doubles,
    "merge-dequantises": merge_dequantises,
    "model-states-exceed-budget": model_states_exceed_budget,
    "truncation-missing": truncation_missing,
    "bucketing-raises-peak": bucketing_raises_peak,
    "longest-sample": longest_sample,
    "padding-to-max": padding_to_max,
    "attention-math-fallback": attention_math_fallback,
    "group-logits": group_logits,
    "eval-batch-logits": eval_batch_logits,
    "eval-use-cache": eval_use_cache,
    "experts-not-quantised": experts_not_quantised,
    "weights-not-quantised": weights_not_quantised,
    "device-map-imbalance": device_map_imbalance,
    "rank-imbalance": rank_imbalance,
    "fragmentation": fragmentation,
    "optimizer-lazy": optimizer_lazy,
    "communication-buffers": communication_buffers,
    "logits-fp32-copies": logits_fp32_copies,
    "kbit-upcast": kbit_upcast,
    "graph-pools": graph_pools,
    "pinned-cache": pinned_cache,
    "host-leak": host_leak,
}
"""Who finds which cause; each is asked once. Findings are shown in this order. A run dies of one cause: of several that
are called an error, the first in this order keeps it.

Growth that took the room and causes that the log proves come before what merely asked for the last bytes: those whose
arithmetic is exact first, then what made the request unusual, last what the tensor was for.
"""
VAGUE = (UNEXPLAINED_GROWTH, "tensors-logged")
"""Causes that say little: another one with the same line says more."""
LEAKS = {
    *(cause for cause, detector in DETECTORS.items() if detector in (growth_in_training, outputs_kept)),
    "adapters-accumulate",
    "eval-leftover",
    "kv-cache-held",
    "optimizer-states-twice",
    "rollouts-kept",
}
"""Causes of what grows or stays; two of them with one line are the same leak."""
_RANKS = {"error": 0, "warning": 1, "info": 2}


def detect(log: RunLog, ranks: Sequence[RunLog] = ()) -> list[Finding]:
    """Return all findings, errors first; at most one error, `unexplained-growth` where the run died of nothing known.

    Args:
        log: of the process that is asked about.
        ranks: the logs of all processes of its run, in order; some causes show only beside the others.

    Raises:
        LogError: the log's configuration has fields that this release does not know.
    """
    order = list(DETECTORS)
    findings, evidence = checkpoints_kept(log), gather(log, ranks)
    for detector in dict.fromkeys(DETECTORS.values()):
        finding = detector(evidence)
        if finding is not None:
            findings.append(finding)
    findings.sort(key=lambda finding: order.index(finding.cause))
    findings = _each_leak_once(findings)
    errors = [finding for finding in findings if finding.severity == "error"]
    fatal = [_with_failure(finding, log) for finding in errors[:1] or unexplained_oom(log)]
    contributing = [dataclasses.replace(finding, severity="warning") for finding in errors[1:]]
    others = [finding for finding in findings if finding.severity != "error"]
    return [*fatal, *sorted(contributing + others, key=lambda finding: _RANKS[finding.severity])]


def _each_leak_once(findings: list[Finding]) -> list[Finding]:
    """Return the findings without those that tell of the same line's leak, less precisely or a second time."""
    others: list[Finding] = []
    by_line: dict[str, Finding] = {}
    for finding in findings:
        if finding.cause not in LEAKS or finding.where is None:
            others.append(finding)
        elif finding.where not in by_line or by_line[finding.where].cause in VAGUE:
            by_line[finding.where] = finding
    return sorted([*others, *by_line.values()], key=findings.index)


def _with_failure(finding: Finding, log: RunLog) -> Finding:
    """Return the finding with what the failed request was for and what lived then; its own evidence goes first."""
    failure = analyse_failure(log)
    return finding if failure is None else dataclasses.replace(finding, evidence=failure.evidence | finding.evidence)
