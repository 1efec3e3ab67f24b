"""What holds for all tests: one thread for PyTorch, and no judgement by the clock."""

import gc
import os
import signal

import pytest
from hypothesis import HealthCheck, settings

# in what the tests start too: to share tensors this small out takes longer than computing
os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when PyTorch is imported
os.environ.pop("CI", None)  # which has commands say now and then how far they are
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell that starts tests in its background ignores

# a machine that is busy with other things makes neither a call nor an example too slow
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

collect_ignore = ["sample_project"]  # a project of its own, run by tests/e2e/test_sample_project.py

LONGEST = ("tests/e2e/", "tests/harness/train/", "tests/probes/")
"""folders of the files that take longest: were one of them begun last, the other process would wait for it"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))


@pytest.fixture(scope="module", autouse=True)
def young_heap():
    """Whoever asks the collector what lives or who holds it looks at what was made since; the rest takes most time."""
    gc.collect()
    gc.freeze()
