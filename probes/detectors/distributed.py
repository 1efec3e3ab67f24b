"""What training on several GPUs takes of each, as far as PyTorch's allocator has it."""

from collections.abc import Sequence
from typing import NamedTuple

from memory_harness.configs.units import MIB, format_bytes
from memory_harness.harness.log.records import BatchShape, Outcome, Phase
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.detectors.evidence import Evidence
from memory_harness.probes.detectors.evidence import train_batches as batches_of
from memory_harness.probes.detectors.reading import (
    highest_peak,
    is_tight,
    peak_rise_bytes,
    records_of,
    severity_without,
)
from memory_harness.probes.findings import Finding

BUCKET_SHARE = 0.05
"""Share of the budget from which the buckets are worth a line: an adapter's have far less."""

SHARDED = ("FSDP", "FullySharded")
"""begin of the names that PyTorch gives to models whose weights are shared out"""
ALONE_SHARE = 0.5
"""share of what one GPU takes to save, beyond which another takes part in it"""
LONGER = 1.2
"""how much longer the longest batch of a GPU has to be than another's"""
PASSES = (Phase.FORWARD, Phase.BACKWARD)
PEER_BYTES = 64 * MIB
"""least that the driver counts for peers on this GPU: less is none of theirs"""
MOVABLE_SHARE = 0.5
"""Share of an even part of the weights that can surely be moved from the GPU that takes most: it may hold fewer of them
than others, beside the head and the logits."""
WEIGHT_BYTES, PACKED_BYTES = 2.0, 0.5
"""of a weight in 16 bits, and in 4"""
LEAST_GAIN = 0.1
"""share of the budget by which the GPU that takes most has to take less, for a word on a run that goes on"""


def device_map_imbalance(evidence: Evidence) -> Finding | None:
    """Find layers that are placed so that one GPU runs full and another has room for what it lacks."""
    log, model, peaks = evidence.log, evidence.log.run.model, evidence.log.run.gpu_peaks
    if model is None or len(peaks) < 2 or not is_tight(log):
        return None
    most, least, budget = max(peaks), min(peaks), log.run.budget_bytes
    packed = model.num_quantised_parameters
    weights = packed * PACKED_BYTES + (model.num_parameters - packed) * WEIGHT_BYTES
    moved = min((most - least) / 2, MOVABLE_SHARE * weights / len(peaks))
    saves = log.fatal_oom is not None and most > budget and most - moved <= budget
    if not saves and moved < LEAST_GAIN * budget:
        return None
    full, free = peaks.index(most), peaks.index(least)
    return Finding(
        cause="device-map-imbalance",
        severity="error" if saves else "warning",
        title=f"GPU {full} is to reserve {format_bytes(most)}, GPU {free} no more than {format_bytes(least)}",
        explanation=f"Layers that hold {format_bytes(round(moved))} could lie on GPU {free} instead, and leave GPU "
        f"{full} with {format_bytes(round(most - moved))} of {format_bytes(budget)}. Write the placement out: "
        "device_map takes a GPU for each layer.",
        bytes=round(moved),
        evidence={"most_bytes": most, "least_bytes": least, "movable_bytes": round(moved)},
    )


def communication_buffers(evidence: Evidence) -> Finding | None:
    """Find buckets of DistributedDataParallel that are a second copy of all gradients."""
    log, model = evidence.log, evidence.log.run.model
    if model is None or model.gradient_bucket_bytes < BUCKET_SHARE * log.run.budget_bytes:
        return None
    num_bytes = model.gradient_bucket_bytes
    return Finding(
        cause="communication-buffers",
        severity=severity_without(log, num_bytes) if is_tight(log) else "info",
        title=f"DistributedDataParallel keeps a second copy of the gradients: {format_bytes(num_bytes)}",
        explanation=f"Its buckets, in which gradients travel between the processes, hold {format_bytes(num_bytes)} for "
        f"{model.num_trainable_parameters} trainable parameters from the begin to the end, beside the gradients "
        "themselves. With gradient_as_bucket_view=True the gradients lie in the buckets.",
        bytes=num_bytes,
        evidence={"bucket_bytes": num_bytes, "trainable_parameters": model.num_trainable_parameters},
    )


class LoneRise(NamedTuple):
    """What one GPU takes beyond the others while a checkpoint is written."""

    rank: int
    num_bytes: int
    others_bytes: int
    """the most that another one takes"""


def lone_gathering(evidence: Evidence) -> LoneRise | None:
    """Return what one GPU gathers alone of a model that is shared out; None where that is not so, or not known."""
    ranks, model = evidence.ranks, evidence.log.run.model
    if len(ranks) < 2 or model is None or not model.name.startswith(SHARDED):
        return None
    rises = list(map(_rise_in_checkpoint, ranks))
    alone = rises.index(max(rises))
    found = LoneRise(alone, rises[alone], max(rises[:alone] + rises[alone + 1 :]))
    is_large = found.num_bytes >= LEAST_GAIN * evidence.log.run.budget_bytes
    return found if is_large and found.others_bytes <= ALONE_SHARE * found.num_bytes else None


def rank_gathers_state(evidence: Evidence) -> Finding | None:
    """Find a checkpoint for which one GPU alone gathers what all of them have in parts."""
    found, ranks = lone_gathering(evidence), evidence.ranks
    if found is None:
        return None
    alone, rise, others = found
    return Finding(
        cause="rank-gathers-state",
        severity=severity_without(ranks[alone], rise, Phase.CHECKPOINT),
        title=f"GPU {alone} alone takes {format_bytes(rise)} more while a checkpoint is written",
        explanation=f"The weights are shared out over {len(ranks)} GPUs, of which no other takes more than "
        f"{format_bytes(others)} for it: the whole state is gathered on GPU {alone}. Gather it into host memory "
        "(StateDictOptions(full_state_dict=True, cpu_offload=True)), or let each GPU write its part "
        "(torch.distributed.checkpoint; SHARDED_STATE_DICT of accelerate).",
        phase=Phase.CHECKPOINT,
        bytes=rise,
        evidence={"gathered_bytes": rise, "others_bytes": others},
    )


def _rise_in_checkpoint(log: RunLog) -> int:
    """Return by how much checkpoints raise what is allocated, with what was asked for where memory ran out."""
    rise = max(map(peak_rise_bytes, records_of(log, Phase.CHECKPOINT)), default=0)
    oom = log.fatal_oom
    if oom is None or oom.phase is not Phase.CHECKPOINT or not log.steps:
        return rise
    return max(rise, oom.allocated_bytes + oom.requested_bytes - log.steps[-1].allocated_bytes)


def rank_imbalance(evidence: Evidence) -> Finding | None:
    """Find a GPU that takes more than others do for longer batches alone: with short ones it takes what they take."""
    ranks, budget = evidence.ranks, evidence.log.run.budget_bytes
    if len(ranks) < 2:
        return None
    peaks = list(map(_peak_in_passes, ranks))
    most, least = peaks.index(max(peaks)), peaks.index(min(peaks))
    difference = peaks[most] - peaks[least]
    if difference < LEAST_GAIN * budget or not is_tight(ranks[most]):
        return None
    tokens = _most_tokens(batches_of(ranks[most])), _most_tokens(batches_of(ranks[least]))
    floors = _floor(ranks[most]), _floor(ranks[least])
    if min(tokens) == 0 or tokens[0] < LONGER * tokens[1] or abs(floors[0] - floors[1]) > LEAST_GAIN * difference:
        return None
    alike = [_peak_up_to(ranks[number], tokens[1]) for number in (most, least)]
    if min(alike) == 0 or abs(alike[0] - alike[1]) > LEAST_GAIN * difference:
        return None
    return Finding(
        cause="rank-imbalance",
        severity="warning",
        title=f"GPU {most} peaks {format_bytes(difference)} above GPU {least}, having longer batches",
        explanation=f"The longest has {tokens[0]} tokens on GPU {most} and {tokens[1]} on GPU {least}; what stays "
        "between steps is the same. train_sampling_strategy='batch_rebalance' of transformers' Trainer deals the "
        "tokens of batches of several rows out evenly; a cap on the tokens of a batch lowers the peak.",
        bytes=difference,
        evidence={"most_tokens": tokens[0], "least_tokens": tokens[1], "difference_bytes": difference},
    )


def _peak_in_passes(log: RunLog) -> int:
    """Return the highest of forward and backward passes, with what was asked for where memory ran out in one."""
    peak, oom = highest_peak(log, *PASSES), log.fatal_oom
    return peak if oom is None or oom.phase not in PASSES else max(peak, oom.allocated_bytes + oom.requested_bytes)


def _peak_up_to(log: RunLog, tokens: int) -> int:
    """Return the highest of the passes of batches that have no more tokens than that."""
    peaks = []
    for record in records_of(log, *PASSES):
        if record.batch is not None and record.batch.padded_tokens <= tokens:
            peaks.append(record.after.peak_allocated_bytes)
    return max(peaks, default=0)


def _most_tokens(batches: Sequence[BatchShape]) -> int:
    return max((batch.padded_tokens for batch in batches), default=0)


def _floor(log: RunLog) -> int:
    """Return what stays allocated between steps, once the optimizer has its states."""
    return log.steps[-1].allocated_bytes


def peers_bytes(log: RunLog) -> int:
    """Return the most that the driver counted on this GPU for processes that the launcher started beside this one."""
    held = (sum(peer.used_bytes for peer in record.use.others if peer.is_peer) for record in log.drivers)
    return max(held, default=0)


def ranks_on_one_gpu(evidence: Evidence) -> Finding | None:
    """Find ranks that hold memory of this rank's GPU, their contexts at least, beside that of their own."""
    log = evidence.log
    if log.run.ranks_on_gpu > 1:
        return _simulated_on_one_gpu(log)
    held = peers_bytes(log)
    if held < PEER_BYTES:
        return None
    pids = {peer.pid for record in log.drivers for peer in record.use.others if peer.is_peer}
    crowded_out = log.fatal_oom is not None and _would_fit_without(log, held)
    return Finding(
        cause="ranks-on-one-gpu",
        severity="error" if crowded_out else "warning",
        title=f"Other ranks of this run hold {format_bytes(held)} of this rank's GPU",
        explanation=f"{len(pids)} of the processes that train together have touched it: a context of CUDA alone takes "
        'some 500 MiB for each. Call torch.cuda.set_device(int(os.environ["LOCAL_RANK"])) before anything else uses '
        "CUDA, and load files with map_location of that device or the CPU.",
        bytes=held,
        evidence={"peers_bytes": held, "peers": len(pids)},
    )


def _simulated_on_one_gpu(log: RunLog) -> Finding:
    """Say what ranks take together that a dry run saw on one GPU; contexts of CUDA are not counted."""
    number, share = log.run.ranks_on_gpu, log.run.budget_bytes
    return Finding(
        cause="ranks-on-one-gpu",
        severity="warning" if log.outcome is Outcome.COMPLETED else "error",
        title=f"All {number} ranks lie on GPU 0: each has {format_bytes(share)} of its {format_bytes(number * share)}",
        explanation="Run as the second rank, the script has its memory on the first rank's GPU too. Call "
        'torch.cuda.set_device(int(os.environ["LOCAL_RANK"])) first, write f"cuda:{local_rank}" for "cuda:0", and give '
        "DistributedDataParallel device_ids=[local_rank]. NCCL joins no two ranks on one GPU (Duplicate GPU detected).",
        bytes=(number - 1) * log.needed_bytes,
        evidence={"peers": number - 1, "budget_bytes_of_each": share},
    )


def _would_fit_without(log: RunLog, num_bytes: int) -> bool:
    """Return whether the card had room for what was asked for if the others were not there, and the budget too."""
    oom = log.fatal_oom
    if oom is None or oom.reserved_bytes + oom.requested_bytes > oom.budget_bytes:
        return False
    last = log.drivers[-1].use
    return (
        last.used_bytes + oom.requested_bytes > last.total_bytes >= (last.used_bytes - num_bytes + oom.requested_bytes)
    )
