"""Layers that are placed unevenly are told where that costs a run its room; the rest is silence."""

from dataclasses import replace

import pytest

from memory_harness.configs.units import GIB
from memory_harness.harness.log.records import Phase
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
