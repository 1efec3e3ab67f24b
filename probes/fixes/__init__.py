"""Fixes: one file each, a pure function from `RunConfig` to `RunConfig`. Register it in `FIXES`."""

from __future__ import annotations

from collections.abc import Iterable

from configs.schema import RunConfig
from probes.findings import Finding, Fix
from probes.fixes.bucketed_batches import BUCKETED_BATCHES
from probes.fixes.chunked_loss import CHUNKED_LOSS
from probes.fixes.clear_cache import CLEAR_CACHE
from probes.fixes.eval_batch import EVAL_BATCH
from probes.fixes.expand_kv import EXPAND_KV
from probes.fixes.expandable_segments import EXPANDABLE_SEGMENTS
from probes.fixes.no_upcast import NO_UPCAST
from probes.fixes.offload_activations import OFFLOAD_ACTIVATIONS
from probes.fixes.optimizer_8bit import OPTIMIZER_8BIT
from probes.fixes.truncation import TRUNCATION

FIXES: dict[str, Fix] = {
    fix.name: fix
    for fix in (
        EVAL_BATCH,
        EXPANDABLE_SEGMENTS,
        CLEAR_CACHE,
        OFFLOAD_ACTIVATIONS,
        NO_UPCAST,
        EXPAND_KV,
        CHUNKED_LOSS,
        OPTIMIZER_8BIT,
        BUCKETED_BATCHES,
        TRUNCATION,
    )
}
"""The ladder: fixes that keep every bit first, then those that round differently, then those that change the order of
the samples, then those that change the samples; within these, those that cost no time first."""


def propose(findings: Iterable[Finding], config: RunConfig) -> list[Fix]:
    """Return the fixes that address a finding's cause and would change the configuration, in ladder order."""
    causes = {finding.cause for finding in findings}
    return [fix for fix in FIXES.values() if causes & set(fix.addresses) and fix.apply(config) is not None]
