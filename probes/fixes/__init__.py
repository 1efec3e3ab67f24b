"""Fixes: one file each, a pure function from `RunConfig` to `RunConfig`. Never imports torch."""

from collections import ChainMap
from collections.abc import Iterable

from memory_harness.configs.schema import RunConfig
from memory_harness.probes.findings import Finding, Fix
from memory_harness.probes.fixes.adafactor import ADAFACTOR
from memory_harness.probes.fixes.auto_attention import AUTO_ATTENTION
from memory_harness.probes.fixes.bucketed_batches import BUCKETED_BATCHES
from memory_harness.probes.fixes.cache_off import CACHE_OFF
from memory_harness.probes.fixes.chunked_loss import CHUNKED_LOSS
from memory_harness.probes.fixes.clear_before_eval import CLEAR_BEFORE_EVAL
from memory_harness.probes.fixes.clear_cache import CLEAR_CACHE
from memory_harness.probes.fixes.drop_outputs import DROP_OUTPUTS
from memory_harness.probes.fixes.embeddings_on_host import EMBEDDINGS_ON_HOST
from memory_harness.probes.fixes.eval_batch import EVAL_BATCH
from memory_harness.probes.fixes.expand_kv import EXPAND_KV
from memory_harness.probes.fixes.expandable_segments import EXPANDABLE_SEGMENTS
from memory_harness.probes.fixes.fast_path import FAST_PATH
from memory_harness.probes.fixes.fewest_recomputed import FEWEST_RECOMPUTED, NOTHING_RECOMPUTED
from memory_harness.probes.fixes.liger_loss import LIGER_LOSS
from memory_harness.probes.fixes.no_upcast import NO_UPCAST
from memory_harness.probes.fixes.offload_activations import OFFLOAD_ACTIVATIONS
from memory_harness.probes.fixes.optimizer_8bit import OPTIMIZER_8BIT
from memory_harness.probes.fixes.paged_optimizer import PAGED_OPTIMIZER
from memory_harness.probes.fixes.quantise_experts import QUANTISE_EXPERTS
from memory_harness.probes.fixes.step_graphs import STEP_GRAPHS
from memory_harness.probes.fixes.tiled_mlp import TILED_MLP
from memory_harness.probes.fixes.train_adapter import TRAIN_ADAPTER
from memory_harness.probes.fixes.truncation import TRUNCATION

NOTICEABLE_SLOWDOWN = 1.05
"""A fix that makes a step slower than this comes after all that keep the result up to rounding and do not: rounding
that training itself does at every step is a smaller price than time."""

FIXES: dict[str, Fix] = {
    fix.name: fix
    for fix in (
        DROP_OUTPUTS,
        CACHE_OFF,
        EXPANDABLE_SEGMENTS,
        CLEAR_BEFORE_EVAL,
        CLEAR_CACHE,
        EMBEDDINGS_ON_HOST,
        EVAL_BATCH,
        NO_UPCAST,
        AUTO_ATTENTION,
        OPTIMIZER_8BIT,
        EXPAND_KV,
        PAGED_OPTIMIZER,
        CHUNKED_LOSS,
        LIGER_LOSS,
        TILED_MLP,
        OFFLOAD_ACTIVATIONS,
        BUCKETED_BATCHES,
        QUANTISE_EXPERTS,
        ADAFACTOR,
        TRAIN_ADAPTER,
        TRUNCATION,
    )
}
"""The ladder, cheapest first, see `rung`: fixes that keep every bit, then those that round differently, then those that
take noticeable time, then those that change the order of the samples, then those that change what is learned.
LIGER_LOSS comes after CHUNKED_LOSS, although it is no slower, because it needs another package."""

SPEEDUPS: dict[str, Fix] = {fix.name: fix for fix in (FAST_PATH, NOTHING_RECOMPUTED, FEWEST_RECOMPUTED, STEP_GRAPHS)}
"""What spends memory for time, in the order in which a plan for speed takes it; it addresses no cause."""

BY_NAME = ChainMap(FIXES, SPEEDUPS)
"""both"""


RUNGS = {"exact": (0, 0), "numerical": (0, 1), "reordered": (1, 0), "data": (2, 0)}
"""by what stays equal: what becomes of the samples, then of the result"""


def rung(fix: Fix) -> tuple[int, int]:
    """Return what orders the ladder: what becomes of the samples, then of the result and the time."""
    samples, result = RUNGS[fix.equivalence]
    return samples, 2 if (fix.slowdown or 1) > NOTICEABLE_SLOWDOWN else result


def propose(findings: Iterable[Finding], config: RunConfig) -> list[Fix]:
    """Return the fixes that address a finding's cause and would change the configuration, in ladder order."""
    causes = {finding.cause for finding in findings}
    return [fix for fix in FIXES.values() if causes & set(fix.addresses) and fix.apply(config) is not None]
