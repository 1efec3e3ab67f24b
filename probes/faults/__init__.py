"""Faults: one file per mistake, each of which really produces its cause. Register it in `FAULTS`."""

from __future__ import annotations

from memory_harness.probes.faults.adapters_accumulate import ADAPTERS_ACCUMULATE
from memory_harness.probes.faults.attention_math_fallback import ATTENTION_MATH_FALLBACK
from memory_harness.probes.faults.autocast_cache import AUTOCAST_CACHE
from memory_harness.probes.faults.base import Fault
from memory_harness.probes.faults.bucketing_raises_peak import BUCKETING_RAISES_PEAK
from memory_harness.probes.faults.checkpointing_lost import CHECKPOINTING_LOST
from memory_harness.probes.faults.epoch_hoard import EPOCH_HOARD
from memory_harness.probes.faults.eval_batch_logits import EVAL_BATCH_LOGITS
from memory_harness.probes.faults.eval_leftover import EVAL_LEFTOVER
from memory_harness.probes.faults.eval_use_cache import EVAL_USE_CACHE
from memory_harness.probes.faults.eval_with_grad import EVAL_WITH_GRAD
from memory_harness.probes.faults.exception_holds_frames import EXCEPTION_HOLDS_FRAMES
from memory_harness.probes.faults.fragmentation import FRAGMENTATION
from memory_harness.probes.faults.head_trainable import HEAD_TRAINABLE
from memory_harness.probes.faults.hook_holds_activations import HOOK_HOLDS_ACTIVATIONS
from memory_harness.probes.faults.host_leak import HOST_LEAK
from memory_harness.probes.faults.kbit_upcast import KBIT_UPCAST
from memory_harness.probes.faults.kept_losses import KEPT_LOSSES
from memory_harness.probes.faults.kv_cache_held import KV_CACHE_HELD
from memory_harness.probes.faults.logits_fp32_copies import LOGITS_FP32_COPIES
from memory_harness.probes.faults.logits_hoarded import LOGITS_HOARDED
from memory_harness.probes.faults.logits_hoarded_host import LOGITS_HOARDED_HOST
from memory_harness.probes.faults.longest_sample import LONGEST_SAMPLE
from memory_harness.probes.faults.merge_dequantises import MERGE_DEQUANTISES
from memory_harness.probes.faults.metric_never_reset import METRIC_NEVER_RESET
from memory_harness.probes.faults.old_model_alive import OLD_MODEL_ALIVE
from memory_harness.probes.faults.oom_in_backward import OOM_IN_BACKWARD
from memory_harness.probes.faults.optimizer_lazy import OPTIMIZER_LAZY
from memory_harness.probes.faults.other_process import OTHER_PROCESS
from memory_harness.probes.faults.outputs_hoarded import OUTPUTS_HOARDED
from memory_harness.probes.faults.padding_to_max import PADDING_TO_MAX
from memory_harness.probes.faults.recompile_per_shape import RECOMPILE_PER_SHAPE
from memory_harness.probes.faults.reference_cycle import REFERENCE_CYCLE
from memory_harness.probes.faults.resume_on_gpu import RESUME_ON_GPU
from memory_harness.probes.faults.retained_graph import RETAINED_GRAPH
from memory_harness.probes.faults.run import check_plantable, execute_with, run_with, tiny_config
from memory_harness.probes.faults.save_doubles import SAVE_DOUBLES
from memory_harness.probes.faults.tensors_logged import TENSORS_LOGGED
from memory_harness.probes.faults.truncation_missing import TRUNCATION_MISSING
from memory_harness.probes.faults.unbackwarded_loss import UNBACKWARDED_LOSS
from memory_harness.probes.faults.unexplained_growth import UNEXPLAINED_GROWTH
from memory_harness.probes.faults.zero_gradient import ZERO_GRADIENT

__all__ = ["FAULTS", "Fault", "check_plantable", "execute_with", "run_with", "tiny_config"]

FAULTS: dict[str, Fault] = {
    fault.name: fault
    for fault in (
        OTHER_PROCESS,
        FRAGMENTATION,
        RESUME_ON_GPU,
        RETAINED_GRAPH,
        UNBACKWARDED_LOSS,
        KEPT_LOSSES,
        TENSORS_LOGGED,
        HOOK_HOLDS_ACTIVATIONS,
        KV_CACHE_HELD,
        LOGITS_HOARDED,
        LOGITS_HOARDED_HOST,
        OUTPUTS_HOARDED,
        EVAL_WITH_GRAD,
        EVAL_USE_CACHE,
        EVAL_LEFTOVER,
        EPOCH_HOARD,
        SAVE_DOUBLES,
        MERGE_DEQUANTISES,
        ADAPTERS_ACCUMULATE,
        METRIC_NEVER_RESET,
        REFERENCE_CYCLE,
        AUTOCAST_CACHE,
        EXCEPTION_HOLDS_FRAMES,
        OOM_IN_BACKWARD,
        RECOMPILE_PER_SHAPE,
        CHECKPOINTING_LOST,
        HEAD_TRAINABLE,
        OLD_MODEL_ALIVE,
        HOST_LEAK,
        UNEXPLAINED_GROWTH,
        EVAL_BATCH_LOGITS,
        LOGITS_FP32_COPIES,
        KBIT_UPCAST,
        PADDING_TO_MAX,
        LONGEST_SAMPLE,
        TRUNCATION_MISSING,
        ATTENTION_MATH_FALLBACK,
        BUCKETING_RAISES_PEAK,
        OPTIMIZER_LAZY,
        ZERO_GRADIENT,
    )
}
"""By name; most carry the name of their cause."""
