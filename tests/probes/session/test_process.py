"""A worker and the process that started it: what ends one, and what the other does then."""

from __future__ import annotations

import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import forkserver, get_context
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from memory_harness.configs.preset import load_preset
from memory_harness.harness.data.prepare import prepare
from memory_harness.harness.log.errors import ConfigError, PeerLost, RunDied
from memory_harness.harness.log.manifest import MANIFEST_FILE
from memory_harness.probes.plan.pool import start_processes
from memory_harness.probes.session import fork_server
from memory_harness.probes.session import worker as worker_module
from memory_harness.probes.session.fork_server import ForkedProcess, can_fork, child_environment, process_context
from memory_harness.probes.session.launcher import _first_death
from memory_harness.probes.session.messages import PEER_LOST
from memory_harness.probes.session.process import (
    LAUNCHER,
    RunRefused,
    RunStopped,
    Worker,
    _passing_on_signals,
    start_probing_worker,
    start_worker,
)
from memory_harness.probes.session.train import WEIGHTS, adapter_in
from tests.builders import AS_PUBLISHED
from tests.e2e.commands import ROOT, wait_until


@pytest.mark.parametrize("error", [EOFError, ConnectionResetError, ConnectionRefusedError])
def test_a_server_of_processes_that_answers_nobody_is_one_line(error, tmp_path, monkeypatch):
    def start(_):
        raise error

    monkeypatch.setattr(fork_server.ForkServerProcess, "_Popen", staticmethod(start))
    with pytest.raises(RunDied, match="died as it started: somebody has killed it"):
        ForkedProcess(fork_server._Forking(), tmp_path / "errors")


@pytest.mark.slow  # the next one has to import PyTorch again
@pytest.mark.skipif(not can_fork(), reason="processes are not forked here")
def test_a_server_of_processes_that_is_killed_as_it_starts_is_one_line(tmp_path):
    fork_server._stop()
    context = process_context()
    server = forkserver._forkserver._forkserver_pid
    os.kill(server, signal.SIGSTOP)
    killer = threading.Timer(0.2, os.kill, (server, signal.SIGKILL))
    killer.start()
    with pytest.raises(RunDied, match="died as it started: somebody has killed it"):
        ForkedProcess(context, tmp_path / "errors")
    killer.join()


def test_a_process_of_a_pool_that_is_killed_is_one_line():
    with pytest.raises(RunDied, match="a process that predicts died"), start_processes(1, get_context("fork")) as pool:
        pool.submit(os.kill, pool.submit(os.getpid).result(), signal.SIGKILL).result()


@contextmanager
def worker_that(script):
    """Start a worker that runs a script instead; yield it once it has said `ready`."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "encoding": "utf-8"}
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen([sys.executable, "-c", script], stderr=errors, **pipes) as process,
    ):
        assert process.stdout.readline() == "ready\n"
        yield Worker(process, errors)


def train(ends):
    """Train in a worker that ends as told once it is asked to stop."""
    script = f"import os, signal, sys\ndef done(*_):\n    {ends}\nsignal.signal(signal.SIGTERM, done)\n"
    # not by `print`: the signal may come before that returns, and what `done` prints would then be an error
    script += "os.write(1, b'ready\\n')\nwhile True: signal.pause()"
    asked = []

    def watch():
        if not asked:
            asked.append(os.kill(os.getpid(), signal.SIGTERM))

    with worker_that(script) as worker:
        worker.train(AS_PUBLISHED, {"run": "runs/x"}, watch)


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


@pytest.mark.parametrize(
    ("codes", "named"),
    [
        ({0: PEER_LOST, 1: -9}, (1, -9)),
        ({1: -9, 0: -15}, (1, -9)),
        ({0: 1, 1: PEER_LOST}, (0, 1)),
        ({1: PEER_LOST}, (1, PEER_LOST)),
    ],
)
def test_the_one_that_died_is_named_and_not_another(codes, named):
    failures = {rank: SimpleNamespace(exitcode=code) for rank, code in codes.items()}
    assert _first_death(failures) == {"died": named}


def test_which_gpu_it_was_is_said_and_how_it_ended():
    script = "import sys; print('ready', flush=True); sys.stdin.readline(); print('{\"died\": [1, -9]}'); sys.exit(1)"
    with (
        worker_that(script) as launcher,
        pytest.raises(RunDied, match="process on GPU 1 died by SIGKILL; --replay runs/x"),
    ):
        replace(launcher, module=LAUNCHER).train(AS_PUBLISHED, {"run": "runs/x"}, lambda: None)


def test_a_run_that_died_names_the_command_that_goes_on_where_there_is_a_checkpoint(tmp_path):
    script = "import sys; print('ready', flush=True); sys.stdin.readline(); print('{\"died\": [1, -9]}'); sys.exit(1)"
    (tmp_path / "checkpoint-1").mkdir()
    (tmp_path / "checkpoint-1" / MANIFEST_FILE).touch()
    with worker_that(script) as launcher, pytest.raises(RunDied, match=f"go on with: .* --resume {tmp_path}$"):
        launcher.train(AS_PUBLISHED, {"run": str(tmp_path)}, lambda: None)


def test_a_launcher_that_is_killed_is_no_death_on_a_gpu():
    script = "import os, sys; print('ready', flush=True); sys.stdin.readline(); os.kill(os.getpid(), 9)"
    with worker_that(script) as launcher, pytest.raises(RunDied, match="the training run died by SIGKILL"):
        replace(launcher, module=LAUNCHER).train(AS_PUBLISHED, {"run": "runs/x"}, lambda: None)


def test_a_second_signal_ends_what_waits_for_a_halted_process():
    halted = "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"
    script = f"""import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
halted = subprocess.Popen([sys.executable, "-c", {halted!r}])
print("ready", flush=True)
halted.wait()
"""
    with worker_that(script) as worker:

        def ask() -> None:
            started = psutil.Process(worker.process.pid).children()
            if started and started[0].status() == psutil.STATUS_STOPPED:
                os.kill(os.getpid(), signal.SIGINT)

        with pytest.raises(RunStopped) as stopped:
            worker.train(AS_PUBLISHED, {"run": "runs/x"}, ask)
    assert stopped.value.number == signal.SIGINT


def test_what_ends_because_of_another_process_leaves_it_to_that_one_to_say_why():
    script = f"import sys; print('ready', flush=True); sys.stdin.readline(); sys.exit({PEER_LOST})"
    with worker_that(script) as worker, pytest.raises(PeerLost):
        worker.train(AS_PUBLISHED, {"run": "runs/x"}, lambda: None)


def test_one_that_dies_before_it_reads_its_request_has_died(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", shutil.which("false"))

    def run_in_worker():
        with start_worker() as worker:
            worker.process.wait()
            worker.run(AS_PUBLISHED, tmp_path / "log.jsonl", "early", lambda *_: None)

    with pytest.raises(RunDied, match="the run 'early' died with exit code 1"):
        run_in_worker()


@pytest.mark.skipif(not can_fork(), reason="workers are forked only where no GPU is")
def test_a_forked_worker_takes_the_data_that_it_is_given_for_the_first_run_alone(tmp_path):
    config = load_preset("smoke_cpu").with_fields(tensors="fake", do_eval=False, samples=40)
    other = config.with_fields(samples=60)
    data = prepare(config)
    with start_probing_worker(config, replace(data, train=data.train[:4])) as worker:
        first = worker.run(config, tmp_path / "first.jsonl", "first", lambda *_: None)
        second = worker.run(other, tmp_path / "second.jsonl", "second", lambda *_: None)
    assert first.run.num_train_samples == 4
    assert second.run.num_train_samples == len(prepare(other).train)


def test_a_worker_ends_with_the_process_that_started_it():
    """Which is killed, and can tell nobody; the worker's standard input stays open."""
    parent = """
        import signal, subprocess, sys
        worker = subprocess.Popen([sys.executable, "-m", "memory_harness.probes.session.worker"])
        print(worker.pid, flush=True)
        signal.pause()
    """
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(parent)], cwd=ROOT, **pipes) as started:
        worker = psutil.Process(int(started.stdout.readline()))
        wait_until(lambda: worker.num_threads() > 1)  # one of them looks after the parent
        started.kill()
        wait_until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)


@pytest.mark.skipif(not can_fork(), reason="workers are not forked where a GPU is")
def test_a_forked_worker_ends_with_the_process_that_started_it():
    """Not with the server that has forked it, which other processes of the same parent keep alive."""
    parent = """
        import signal
        from memory_harness.configs.schema import RunConfig
        from memory_harness.probes.session.process import start_probing_worker
        with start_probing_worker(RunConfig()) as worker:
            print(worker.process.pid, flush=True)
            signal.pause()
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(parent)], cwd=ROOT, stdout=subprocess.PIPE) as started:
        worker = psutil.Process(int(started.stdout.readline()))
        wait_until(lambda: worker.num_threads() > 1)
        started.kill()
        wait_until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)


@pytest.mark.skipif(not can_fork(), reason="workers are not forked where a GPU is")
def test_a_forked_worker_that_is_killed_has_died(tmp_path):
    with start_probing_worker(AS_PUBLISHED) as worker:
        worker.process.kill()
        with pytest.raises(RunDied, match="the run 'early' died by SIGKILL"):
            worker.run(AS_PUBLISHED, tmp_path / "log.jsonl", "early", lambda *_: None)


@pytest.mark.parametrize(
    "module",
    [
        "memory_harness.probes.session.worker",
        pytest.param("memory_harness.probes.session.preloaded", marks=pytest.mark.slow),
    ],
)
def test_nothing_of_the_current_folder_is_imported(module, tmp_path):
    for name in ("random", "configs", "torch", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')")
    environment = {**os.environ, **child_environment()}
    ended = subprocess.run([sys.executable, "-m", module], cwd=tmp_path, input="", env=environment, check=False)
    assert ended.returncode == 0


def test_what_imports_for_others_leaves_ctrl_c_to_who_started_it(monkeypatch):
    monkeypatch.setattr(worker_module, "import_libraries", lambda: signal.raise_signal(signal.SIGINT))
    runpy.run_path(str(Path(fork_server.__file__).with_name("preloaded.py")))
    with pytest.raises(KeyboardInterrupt):  # what is forked from it takes it again
        signal.raise_signal(signal.SIGINT)


def test_a_signal_that_is_ignored_stays_so():
    """As nohup has it, so that training goes on when the terminal is closed."""
    with subprocess.Popen(["sleep", "3600"]) as sleeper:
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            with _passing_on_signals(sleeper) as received:
                os.kill(os.getpid(), signal.SIGHUP)
                assert (received, sleeper.poll()) == ([], None)
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


NOISY = """
import os, signal, sys
signal.alarm(120)  # rather than wait for an answer
from memory_harness.configs.errors import HarnessError
from memory_harness.probes.session import worker

def prints_and_refuses(request):
    print("Do you wish to run the custom code? [y/N] ", end="", flush=True)
    os.write(1, b"{not JSON")
    try:
        input()
    except EOFError:
        raise HarnessError("what has to change")

worker._carry_out = prints_and_refuses
sys.exit(worker.main())
"""


def test_what_a_library_prints_or_asks_is_no_part_of_what_a_worker_says():
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            [sys.executable, "-c", NOISY],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
            env={**os.environ, **child_environment()},
        ) as noisy,
    ):
        worker = Worker(noisy, errors)
        with pytest.raises(RunRefused, match="what has to change"):
            worker.generate(AS_PUBLISHED, Path("adapter"), Path("log"))
        noisy.stdin.close()
        assert noisy.wait() == 2
        errors.seek(0)
        assert "custom code? [y/N] {not JSON" in errors.read()


def test_a_signal_to_a_worker_that_ends_just_now_is_none():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    worker = ForkedProcess.__new__(ForkedProcess)
    worker._process = SimpleNamespace(pid=ended.pid, exitcode=None)
    worker.kill()
