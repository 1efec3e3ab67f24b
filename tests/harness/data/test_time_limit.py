"""Other people's code is stopped by a limit in time."""

import threading

import pytest

from memory_harness.harness.data.time_limit import time_limit


def endless():
    while True:
        pass


def test_what_does_not_end_is_stopped():
    with pytest.raises(TimeoutError, match=r"does not end within 0\.05 s"), time_limit(0.05):
        endless()


def test_what_ends_is_left_alone():
    with time_limit(5):
        found = sum(range(10))
    assert found == 45


def test_beside_the_main_thread_there_is_no_limit():
    found = []

    def run():
        with time_limit(0.0):
            found.append(1)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [1]
