"""What several detectors ask of a log is worked out once, and each detector is asked once."""

import sys
from collections import Counter

import pytest

from memory_harness.configs.units import MIB
from memory_harness.harness.log.records import Phase
from memory_harness.probes.detectors import DETECTORS, detect
from memory_harness.probes.detectors.evidence import evaluations, gather, step_growth, train_batches
from memory_harness.probes.detectors.floor import forecast
from memory_harness.probes.detectors.reading import config_of
from memory_harness.probes.findings import UNEXPLAINED_GROWTH
from tests.builders import AS_PUBLISHED, Failure, make_log

SHARED = (gather, config_of, step_growth, evaluations, train_batches)
LOGS = {
    "clean": make_log(),
    "leaking": make_log(AS_PUBLISHED.with_fields(samples=80), leak_per_step=MIB),
    "out of memory": make_log(failure=Failure(Phase.EVAL, 16)),
}


def calls_in_detect(log):
    """Return how often each function of Python was called while the findings were looked for."""
    counts = Counter()

    def count(frame, event, _):
        if event == "call":
            counts[frame.f_code] += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        detect(log)
    finally:
        sys.setprofile(before)
    return counts


@pytest.mark.parametrize("name", LOGS)
def test_shared_quantities_and_detectors_are_called_once(name):
    counts = calls_in_detect(LOGS[name])
    functions = {*SHARED, *DETECTORS.values()}
    assert {function.__name__: counts[function.__code__] for function in functions} == {
        function.__name__: 1 for function in functions
    }


def test_growth_is_forecast_once():
    log = LOGS["leaking"]
    assert UNEXPLAINED_GROWTH in [finding.cause for finding in detect(log)]
    assert calls_in_detect(log)[forecast.__code__] == 1
