"""A worker and the process that started it: what ends one, and what the other does then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time

import psutil
import pytest

from memory_harness.harness.log.errors import ConfigError
from memory_harness.probes.session.process import RunDied, RunStopped, Worker, _passing_on_signals
from memory_harness.probes.session.train import WEIGHTS, adapter_in
from tests.builders import AS_PUBLISHED
from tests.e2e.commands import ROOT


def train(ends):
    """Train in a worker that ends as told once it is asked to stop."""
    script = f"import signal, sys, time\ndef done(*_):\n    {ends}\nsignal.signal(signal.SIGTERM, done)\n"
    script += "print('ready', flush=True)\nwhile True: time.sleep(0.01)"
    asked = []

    def watch():
        if not asked:
            asked.append(os.kill(os.getpid(), signal.SIGTERM))

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


def test_a_worker_ends_with_the_process_that_started_it():
    """Which is killed, and can tell nobody."""
    parent = """
        import subprocess, sys, time
        worker = subprocess.Popen([sys.executable, "-m", "memory_harness.probes.session.worker"], stdin=subprocess.PIPE)
        print(worker.pid, flush=True)
        time.sleep(600)
    """
    command = [sys.executable, "-c", textwrap.dedent(parent)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        worker = psutil.Process(int(process.stdout.readline()))
        time.sleep(2.0)  # it reads a request by then
        process.kill()
    deadline = time.monotonic() + 30
    while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_signal_that_is_ignored_stays_so():
    """As nohup has it, so that training goes on when the terminal is closed."""
    with subprocess.Popen(["sleep", "60"]) as process:
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            with _passing_on_signals([process]) as received:
                os.kill(os.getpid(), signal.SIGHUP)
                assert (received, process.poll()) == ([], None)
                os.kill(os.getpid(), signal.SIGTERM)
                assert received == [signal.SIGTERM]
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        finally:
            signal.signal(signal.SIGHUP, before)


def test_what_answers_has_an_adapter(tmp_path):
    with pytest.raises(ConfigError, match=f"--generate {tmp_path}: no adapter in it"):
        adapter_in(tmp_path)
    (tmp_path / WEIGHTS).touch()
    assert adapter_in(tmp_path) == tmp_path
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / WEIGHTS).touch()
    assert adapter_in(tmp_path) == tmp_path / "adapter"
