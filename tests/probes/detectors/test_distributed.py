"""What several GPUs take that train together: told where it costs a run its room; the rest is silence."""

from dataclasses import replace

import pytest

from memory_harness.configs.units import GIB, MIB
from memory_harness.harness.log.records import DriverRecord, DriverUse, GpuProcess, MemoryStats, Phase
from memory_harness.probes.detectors import detect
from tests.builders import AS_PUBLISHED, LLAMA_8B, Failure, make_log

LEAN = AS_PUBLISHED.with_fields(kbit_upcast=False, batching="dynamic", eval_batch_size=1, loss="chunked")
DIED = make_log(LEAN, failure=Failure(Phase.FORWARD, 3))
FULL = DIED.run.budget_bytes
WEIGHTS = LLAMA_8B.num_quantised_parameters // 2


def found(log, *peaks):
    log = replace(log, run=replace(log.run, gpu_peaks=peaks))
    return {finding.cause: finding for finding in detect(log)}.get("device-map-imbalance")


def test_a_gpu_that_runs_full_beside_one_with_room_is_told():
    finding = found(DIED, FULL + GIB // 4, FULL // 4)
    assert finding.evidence["least_bytes"] == FULL // 4
    assert finding.severity == "error"
    assert finding.bytes <= WEIGHTS
    assert "GPU 0 is to reserve" in finding.title


@pytest.mark.parametrize(
    "peaks",
    [
        (),
        (FULL + GIB // 4,),
        (FULL + GIB // 4, FULL + GIB // 8),
        (FULL + GIB // 4, FULL),
        (FULL + 8 * GIB, FULL - GIB),
    ],
    ids=["one process for each GPU", "one GPU", "all are full", "there is no room", "more than weights is missing"],
)
def test_what_no_other_placement_would_help_is_no_finding(peaks):
    assert found(DIED, *peaks) is None


def test_a_run_with_room_everywhere_is_no_finding():
    log = make_log(LEAN.with_fields(budget_bytes=64 * GIB))
    assert found(log, 9 * GIB, GIB) is None


SHORT, LONG = [300] * 8, [300] * 7 + [1024]


def causes(log, ranks):
    return {finding.cause: finding for finding in detect(log, ranks)}


def rank(lengths=SHORT, *, name="FSDPLlamaForCausalLM", checkpoint_bytes=0, floor_bytes=0):
    """Return the log of one GPU; its checkpoints take so much more while they are written."""
    log = make_log(LEAN, lengths=lengths, budget_bytes=12 * GIB)
    log.run = replace(log.run, model=replace(LLAMA_8B, name=name))
    log.steps = [replace(step, allocated_bytes=step.allocated_bytes + floor_bytes) for step in log.steps]
    log.phases = [with_rise(record, checkpoint_bytes) for record in log.phases]
    return log


def with_rise(record, num_bytes):
    if record.phase is not Phase.CHECKPOINT or not num_bytes:
        return record
    after: MemoryStats = replace(record.after, peak_allocated_bytes=record.after.allocated_bytes + num_bytes)
    return replace(record, after=after)


def test_a_gpu_that_gathers_the_whole_state_alone_is_told_by_all_and_once():
    ranks = [rank(checkpoint_bytes=5 * GIB), rank(checkpoint_bytes=64 * MIB)]
    for log in ranks:
        found = causes(log, ranks)
        assert found["rank-gathers-state"].bytes == 5 * GIB
        assert found["rank-gathers-state"].title.startswith("GPU 0 alone takes 5.00 GiB more")
        assert "save-doubles" not in found


@pytest.mark.parametrize(
    "ranks",
    [
        [rank(checkpoint_bytes=5 * GIB)],
        [rank(checkpoint_bytes=5 * GIB), rank(checkpoint_bytes=5 * GIB)],
        [rank(checkpoint_bytes=MIB), rank()],
        [rank(name="LlamaForCausalLM", checkpoint_bytes=5 * GIB), rank(name="LlamaForCausalLM")],
        [rank(checkpoint_bytes=5 * GIB), rank(name="FSDPTeacher")],
    ],
    ids=["one GPU is known", "all gather", "a small state", "each has the whole model", "another model"],
)
def test_what_is_no_gathering_by_one_is_no_finding(ranks):
    assert "rank-gathers-state" not in causes(ranks[0], ranks)


def test_a_gpu_whose_batches_are_longer_is_told_with_the_setting_that_evens_them_out():
    ranks = [rank(), rank(LONG)]
    finding = causes(ranks[0], ranks)["rank-imbalance"]
    assert (finding.evidence["most_tokens"], finding.evidence["least_tokens"]) == (1024, 320)
    assert finding.title.startswith("GPU 1 peaks")
    assert "batch_rebalance" in finding.explanation


@pytest.mark.parametrize(
    "ranks",
    [
        [rank(LONG)],
        [rank(LONG), rank(LONG)],
        [rank(), rank(LONG, floor_bytes=2 * GIB)],
        [rank([1024, *SHORT]), rank(LONG)],
    ],
    ids=["one GPU is known", "alike", "one keeps more between steps", "each has a long one"],
)
def test_peaks_that_differ_by_nothing_or_by_something_else_are_no_finding(ranks):
    assert "rank-imbalance" not in causes(ranks[0], ranks)


def driver_log(*peers, is_peer=True):
    log = make_log(LEAN)
    others = tuple(GpuProcess(70 + i, "python", num_bytes, False, is_peer) for i, num_bytes in enumerate(peers))
    use = DriverUse(9 * GIB + sum(peers), 16 * GIB, 9 * GIB, others)
    return replace(log, drivers=[DriverRecord(Phase.STEP, step, 8 * GIB, use) for step in (1, 2)])


def test_peers_on_this_gpu_are_told_as_such_and_as_nothing_else():
    found = causes(driver_log(500 * MIB, 500 * MIB), ())
    assert (found["ranks-on-one-gpu"].bytes, found["ranks-on-one-gpu"].severity) == (1000 * MIB, "warning")
    assert "other-process" not in found


@pytest.mark.parametrize(
    "log", [driver_log(), driver_log(MIB), driver_log(500 * MIB, is_peer=False)], ids=["none", "a handle", "a desktop"]
)
def test_others_that_are_no_peers_are_no_ranks_on_one_gpu(log):
    assert "ranks-on-one-gpu" not in causes(log, ())
