"""The trackers that a trainer's callback feeds from the log that it records."""

from __future__ import annotations

from collections.abc import Sequence

from memory_harness.harness.log.trackers import TrackerFeed, check_trackers
from memory_harness.harness.observe.own_loop import Recorder


class Tracking:
    """Sends losses and memory to trackers while a log grows; does nothing without any.

    Args:
        names: of the trackers.

    Raises:
        ConfigError: one is unknown or not installed.
    """

    def __init__(self, names: Sequence[str]) -> None:
        check_trackers(names, "log_to")
        self._names = tuple(names)
        self._feed: TrackerFeed | None = None

    def begin(self, recorder: Recorder) -> None:
        """Follow the log of a recorder, where it has one."""
        if self._names and recorder.log is not None:
            self._feed = TrackerFeed(recorder.log, recorder.log.stem, self._names)

    def send(self, recorder: Recorder) -> None:
        """Send what is new in the log; what the trackers make of it counts as nobody's."""
        if self._feed is not None:
            with recorder.device.on_host():
                self._feed.update()

    def end(self) -> None:
        """Send the rest and end the trackers' runs."""
        feed, self._feed = self._feed, None
        if feed is not None:
            feed.close()
