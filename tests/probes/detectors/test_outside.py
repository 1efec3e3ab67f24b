"""Findings about memory outside of PyTorch's tensors: on logs that show each, on clean ones, on look-alikes."""

from dataclasses import replace

import pytest

from memory_harness.configs.units import GIB, MIB
from memory_harness.harness.log.records import DriverRecord, DriverUse, GpuProcess, Phase, PoolRecord, PoolUse
from memory_harness.probes.detectors import detect
from memory_harness.reports.outside import outside_rows, outside_to_json
from memory_harness.reports.sections import probe_sections
from memory_harness.reports.summary import result_of_log
from tests.builders import AS_PUBLISHED, FLOOR, Failure, make_log

LEAN = AS_PUBLISHED.with_fields(kbit_upcast=False, batching="dynamic", eval_batch_size=1, loss="chunked")
SHORT = [200, 260, 310, 420, 180, 350, 290, 240] * 3
CONTEXT, TOTAL = GIB // 2, 16 * GIB
NUM_STEPS = 32


def driver_log(outside, foreign, *, log=None, names=("game",), is_gone=False, own_is_known=True):
    """Return a log with a reading after each step; `outside` and `foreign` give bytes by step."""
    log = log or make_log(LEAN, lengths=SHORT)
    records = []
    for step in range(1, NUM_STEPS + 1):
        reserved, own = 8 * GIB, 8 * GIB + outside(step)
        others = tuple(GpuProcess(70 + i, name, foreign(step), is_gone) for i, name in enumerate(names))
        use = DriverUse(own + foreign(step) * len(names), TOTAL, own if own_is_known else None, others)
        records.append(DriverRecord(Phase.STEP, step, reserved, use))
    return replace(log, drivers=[record for record in records if record.step <= max(1, log.last_step)])


def flat(num_bytes):
    return lambda step: num_bytes


def found(log):
    return {finding.cause: finding for finding in detect(log) if finding.severity != "info"}


def test_a_steady_card_has_no_finding():
    assert found(driver_log(flat(CONTEXT), flat(GIB))) == {}


def test_another_process_that_grows_is_named():
    finding = found(driver_log(flat(CONTEXT), lambda step: 40 * MIB * step))["other-process"]
    assert (finding.severity, finding.bytes) == ("warning", 31 * 40 * MIB)
    assert "game (pid 70: 1.25 GiB)" in finding.explanation


def test_others_that_go_up_and_down_a_little_are_no_finding():
    assert found(driver_log(flat(CONTEXT), lambda step: GIB + 20 * MIB * (step % 3))) == {}


def test_a_process_that_comes_in_the_middle():
    finding = found(driver_log(flat(CONTEXT), lambda step: 2 * GIB * (step >= 9)))["other-process"]
    assert finding.steps == (9, 32)


def test_a_gone_process_that_holds_memory_is_called_so():
    log = driver_log(flat(CONTEXT), lambda step: 40 * MIB * step, is_gone=True)
    assert "No longer there" in found(log)["other-process"].explanation


def test_memory_of_a_gone_process_is_told_though_nothing_grows():
    finding = found(driver_log(flat(CONTEXT), flat(GIB), is_gone=True))["other-process"]
    assert "1.00 GiB of the GPU is held for processes that no longer exist" in finding.title
    assert (finding.severity, finding.bytes) == ("warning", GIB)
    assert found(driver_log(flat(CONTEXT), flat(MIB), is_gone=True)) == {}


def test_a_process_that_ended_as_it_was_read_is_not_called_gone():
    log = driver_log(flat(CONTEXT), flat(GIB))
    last = log.drivers[-1]
    ending = last.use._replace(others=(GpuProcess(70, "game", GIB, is_gone=True),))
    log = replace(log, drivers=[*log.drivers[:-1], replace(last, use=ending)])
    assert not outside_rows(log)["no longer there"]
    assert found(log) == {}


STEADY = flat(CONTEXT)


def crowded(foreign, outside=STEADY):
    """A run that dies below its budget, as the card is full."""
    failure = Failure(Phase.FORWARD, 20, requested_bytes=512 * MIB, allocated_bytes=FLOOR, reserved_bytes=8 * GIB)
    log = make_log(LEAN, lengths=SHORT, failure=failure)
    return driver_log(outside, foreign, log=log)


def test_a_run_that_others_left_no_room_for():
    error = next(finding for finding in detect(crowded(flat(TOTAL - 8 * GIB - CONTEXT))) if finding.severity == "error")
    assert error.cause == "other-process"
    assert "held memory from the begin" in error.explanation


def test_a_run_that_dies_with_room_on_the_card_is_not_blamed_on_others():
    assert "other-process" not in found(crowded(flat(GIB)))


def test_libraries_that_take_more_with_every_step():
    finding = found(driver_log(lambda step: CONTEXT + 8 * MIB * step, flat(0)))["outside-growth"]
    assert (finding.severity, finding.bytes) == ("warning", 29 * 8 * MIB)
    assert "this process's own" in finding.explanation


@pytest.mark.parametrize(
    "outside",
    [
        lambda step: CONTEXT + 300 * MIB * (step >= 16),
        lambda step: CONTEXT + 30 * MIB * min(step, 10),
        lambda step: CONTEXT + 200 * MIB * (step % 4 == 0),
        lambda step: CONTEXT + MIB * step,
    ],
    ids=["kernels of the first evaluation", "warm-up that ends", "workspaces that come and go", "too little"],
)
def test_what_libraries_take_once_is_no_growth(outside):
    assert found(driver_log(outside, flat(0))) == {}


def test_buffers_made_once_that_filled_the_card():
    def outside(step):
        return CONTEXT if step < 10 else TOTAL - 8 * GIB - MIB

    error = next(finding for finding in detect(crowded(flat(0), outside)) if finding.severity == "error")
    assert error.cause == "outside-growth"


def test_where_the_driver_does_not_say_whose_it_is_neither_is_it_said_here():
    log = driver_log(flat(CONTEXT), lambda step: 40 * MIB * step, names=("",), own_is_known=False)
    assert set(found(log)) == {"outside-growth"}
    assert "nvidia-ml-py tells them apart" in found(log)["outside-growth"].explanation


def test_a_log_of_before_is_read_by_its_phases():
    log = make_log(LEAN, lengths=SHORT)
    phases = [
        replace(phase, driver_used_bytes=phase.after.reserved_bytes + CONTEXT + 40 * MIB * phase.step)
        for phase in log.phases
    ]
    assert set(found(replace(log, phases=phases))) == {"outside-growth"}


def pool_log(use, lengths=SHORT):
    log = make_log(LEAN, lengths=lengths)
    pools = [PoolRecord(Phase.STEP, step, 8 * GIB, use(step)) for step in range(1, NUM_STEPS + 1)]
    return replace(log, pools=pools)


def test_a_pinned_cache_that_grows_unused():
    log = pool_log(lambda step: PoolUse(pinned_bytes=32 * MIB * step, pinned_active_bytes=32 * MIB))
    assert set(found(log)) == {"pinned-cache"}


@pytest.mark.parametrize(
    "use",
    [
        lambda step: PoolUse(pinned_bytes=32 * MIB * step, pinned_active_bytes=32 * MIB * step),
        lambda step: PoolUse(pinned_bytes=64 * MIB * min(step, 8), pinned_active_bytes=0),
        lambda step: PoolUse(pinned_bytes=MIB * step, pinned_active_bytes=0),
    ],
    ids=["in use", "filled early", "small"],
)
def test_pinned_memory_that_is_needed_or_settled_is_no_finding(use):
    assert found(pool_log(use)) == {}


def test_host_memory_that_pinned_memory_explains_is_not_called_a_leak():
    log = pool_log(lambda step: PoolUse(pinned_bytes=32 * MIB * step, pinned_active_bytes=32 * MIB))
    steps = [replace(step, host_rss_bytes=GIB + 32 * MIB * step.step) for step in log.steps]
    assert set(found(replace(log, steps=steps))) == {"pinned-cache"}
    assert set(found(replace(log, steps=steps, pools=[]))) == {"host-leak"}


def pools_by_length(step):
    """A pool for each of the six lengths, each of which both micro-batches of a step have."""
    return PoolUse(min(step, 6), 100 * MIB * min(step, 6))


def test_a_pool_for_each_new_length():
    lengths = [64 * n for n in (9, 9, 5, 5, 7, 7, 3, 3, 8, 8, 4, 4)]
    finding = found(pool_log(pools_by_length, lengths))["recompile-per-shape"]
    assert "private pool" in finding.title
    assert finding.bytes == 400 * MIB


def test_pools_that_grow_at_known_lengths_are_not_laid_on_new_ones():
    assert "recompile-per-shape" not in found(pool_log(pools_by_length, [320] * 8))


def test_pools_that_take_a_good_part_are_told_and_small_ones_are_not():
    assert "graph-pools" in {f.cause for f in detect(pool_log(lambda step: PoolUse(4, 2 * GIB)))}
    assert "graph-pools" not in {f.cause for f in detect(pool_log(lambda step: PoolUse(4, 200 * MIB)))}


def test_the_report_says_what_was_outside():
    log = driver_log(lambda step: CONTEXT + 8 * MIB * step, lambda step: 40 * MIB * step)
    rows = outside_rows(replace(log, pools=[PoolRecord(Phase.STEP, 1, GIB, PoolUse(2, GIB, GIB, MIB))]))
    assert rows["this process"] == "at most 768.00 MiB (step 32), 248.00 MiB more at the end than at first"
    assert rows["listed at most"] == "game (pid 70: 1.25 GiB)"
    assert rows["private pools"] == "2 pools, 1.00 GiB"
    (section,) = [s for s in probe_sections(result_of_log(log)) if s.name == "outside"]
    assert section.body
    report = outside_to_json(log)
    assert report is not None
    assert report["others"][-1] == {"step": 32, "num_bytes": 32 * 40 * MIB}


def test_a_card_that_was_not_asked_has_no_section():
    log = make_log(LEAN, lengths=SHORT)
    assert outside_to_json(log) is None
    assert not [s for s in probe_sections(result_of_log(log)) if s.name == "outside" and s.body]
