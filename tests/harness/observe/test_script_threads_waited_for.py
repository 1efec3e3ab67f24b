"""Which threads a watched script's end is waited for."""

import threading
from concurrent.futures import ThreadPoolExecutor

from memory_harness.harness.observe.script_threads import wait_for_threads


def test_what_a_script_has_started_is_waited_for():
    go_on, done = threading.Event(), []
    before = threading.enumerate()
    threading.Thread(target=lambda: done.append(go_on.wait(5))).start()
    threading.Timer(0.05, go_on.set).start()
    wait_for_threads(before)
    assert done == [True]


def test_daemons_pools_and_threads_of_before_are_not():
    stop = threading.Event()
    earlier = threading.Thread(target=stop.wait)
    earlier.start()
    before = threading.enumerate()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int)
        threading.Thread(target=stop.wait, daemon=True).start()
        waiting = threading.Thread(target=wait_for_threads, args=(before,), daemon=True)
        # as of the main thread, whose own it does not count
        before.append(waiting)
        waiting.start()
        waiting.join(2)
        is_waiting = waiting.is_alive()
        stop.set()
    earlier.join()
    assert not is_waiting
