"""What becomes of a worker that is asked to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile

import pytest

from probes.process import RunDied, RunStopped, Worker
from tests.builders import AS_PUBLISHED


def train(ends):
    """Train in a worker that ends as told once it is asked to stop."""
    script = f"import signal, sys, time\ndef done(*_):\n    {ends}\nsignal.signal(signal.SIGTERM, done)\n"
    script += "print('ready', flush=True)\nwhile True: time.sleep(0.01)"
    asked = []

    def watch():
        if not asked:
            asked.append(os.kill(os.getpid(), signal.SIGINT))

    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "encoding": "utf-8"}
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen([sys.executable, "-c", script], stderr=errors, **pipes) as process,
    ):
        assert process.stdout.readline() == "ready\n"
        Worker(process, errors).train(AS_PUBLISHED, {"run": "runs/x"}, watch)


@pytest.mark.parametrize(
    "ends",
    [
        'print(\'{"trained": "stopped"}\', flush=True); sys.exit()',
        "signal.signal(signal.SIGTERM, signal.SIG_DFL); signal.raise_signal(signal.SIGTERM)",
    ],
    ids=["at a checkpoint", "before it could"],
)
def test_one_that_ends_is_stopped(ends):
    with pytest.raises(RunStopped):
        train(ends)


def test_one_that_dies_of_an_error_meanwhile_has_died():
    with pytest.raises(RunDied, match="exit code 1") as died:
        train("raise ValueError('of what')")
    assert "ValueError: of what" in died.value.details


def test_one_that_was_done_anyway_is_done():
    train('print(\'{"trained": "completed"}\', flush=True); sys.exit()')
