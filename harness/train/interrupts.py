"""SIGTERM, SIGINT, SIGHUP as a request to stop at the next safe point: so notebooks, batch systems, terminals end."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StopRequest:
    """Which signal has asked to stop; empty while none has."""

    def __init__(self) -> None:
        self.signal_name = ""


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Within, the first signal is a request; the second does what it would have done. To be used in the main thread."""
    request = StopRequest()
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def on_signal(number: int, frame: FrameType | None) -> None:
        request.signal_name = signal.Signals(number).name
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in SIGNALS:
        signal.signal(number, on_signal)
    try:
        yield request
    finally:
        restore()
