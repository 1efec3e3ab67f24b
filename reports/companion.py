"""A process beside a run that follows its log: it serves the live page and feeds trackers.

The run itself is left alone: the log is all that the two share. The parent writes a folder to follow to standard input,
a line each; the end of the input is the end of the run.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from memory_harness.configs.cli import ANY_PORT, Command
from memory_harness.configs.errors import ConfigError
from memory_harness.harness.log.records import RunRecord
from memory_harness.harness.log.trackers import TrackerFeed, check_trackers
from memory_harness.probes.session.fork_server import child_environment
from memory_harness.reports.live_page import HOST, LivePage, open_server

SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_AFTER = 3.0
"""how long the page can still be asked for once the run is over, so that its last state is seen"""
SECONDS_TO_END = 60.0
"""how long a tracker may take to send the rest"""

Follow = Callable[[Path], None]


@contextmanager
def following(command: Command) -> Iterator[Follow]:
    """Yield what is told each folder that a run writes its logs to; does nothing where nobody wants to follow.

    Raises:
        ConfigError: a tracker is not installed, or the port is taken.
    """
    if command.live is None and not command.log_to:
        yield lambda folder: None
        return
    check_trackers(command.log_to)
    port = None if command.live is None else max(0, command.live)
    request = {"port": port, "token": secrets.token_urlsafe(16), "trackers": list(command.log_to)}
    process = subprocess.Popen(
        [sys.executable, "-m", "memory_harness.reports.companion"],
        env={**os.environ, **child_environment()},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    _tell(process.stdin, request)
    answer = json.loads(process.stdout.readline() or '{"error": "it did not start"}')
    if "error" in answer:
        process.wait()
        raise ConfigError(f"--live {command.live if command.live != ANY_PORT else ''}: {answer['error']}")
    if port is not None:
        print(f"live: http://{HOST}:{answer['port']}/{request['token']}/", file=sys.stderr, flush=True)
    stdin = process.stdin
    try:
        yield lambda folder: _tell(stdin, {"folder": str(folder)})
    finally:
        process.stdin.close()
        try:
            process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            process.kill()


def _tell(stream: IO[str], message: Mapping[str, object]) -> None:
    try:
        stream.write(json.dumps(message) + "\n")
        stream.flush()
    except OSError:  # it is gone, which is no reason to end the run
        return


def main() -> int:
    """Follow until standard input ends."""
    request = json.loads(sys.stdin.readline())
    page = LivePage()
    port = None
    if request["port"] is not None:
        try:
            server = open_server(page, request["port"], request["token"])
        except OSError as error:
            print(json.dumps({"error": f"cannot be served ({error.strerror}); give another port, or none"}), flush=True)
            return 2
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
    print(json.dumps({"port": port}), flush=True)
    feeds = _Feeds(request["trackers"])
    over = threading.Event()
    threading.Thread(target=feeds.run, args=(over,), daemon=True).start()
    for line in sys.stdin:
        folder = Path(json.loads(line)["folder"])
        page.follow(folder)
        feeds.follow(folder)
    page.is_over = True
    over.set()
    feeds.close()
    if port is not None:
        time.sleep(SECONDS_AFTER)
    return 0


class _Feeds:
    """Feeds trackers from the logs of the folder that is followed: that of a training, or of a script."""

    def __init__(self, trackers: list[str]) -> None:
        self._trackers = trackers
        self._folder: Path | None = None
        self._feeds: dict[Path, TrackerFeed] = {}
        self._lock = threading.Lock()

    def follow(self, folder: Path) -> None:
        """Send what is written into this folder."""
        with self._lock:
            self._folder = folder

    def run(self, over: threading.Event) -> None:
        """Look again and again."""
        while not over.wait(SECONDS_BETWEEN_LOOKS):
            self._look()

    def _look(self) -> None:
        with self._lock:
            if self._folder is None or not self._trackers:
                return
            for path in sorted(self._folder.glob("*.jsonl"))[:1]:
                self._feeds.setdefault(path, TrackerFeed(path, path.parent.name, self._trackers, _is_tracked))
            for feed in self._feeds.values():
                feed.update()

    def close(self) -> None:
        """Send the rest."""
        self._look()
        with self._lock:
            for feed in self._feeds.values():
                feed.close()


def _is_tracked(run: RunRecord) -> bool:
    """Return whether a run is a training or a script: a probe comes before, and nobody keeps its numbers."""
    return bool(run.script or run.let_in_by)


if __name__ == "__main__":
    sys.exit(main())
