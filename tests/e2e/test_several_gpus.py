"""Two processes that train together, by the command line: one is killed, the run goes on, replies come from one GPU."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from memory_harness.harness.log.records import Outcome
from memory_harness.harness.log.runlog import read_run_log
from tests.e2e.commands import HANG_SECONDS, ROOT, run_probe, wait_until

TRAIN = ("--preset", "smoke_cpu", "--num-gpus", "2", "--train", "--force", "--no-compare-base", "--save-every", "1")


@pytest.mark.slow
def test_a_killed_process_ends_the_run_in_one_clear_line_and_it_goes_on(tmp_path):
    command = subprocess.Popen(
        [sys.executable, str(ROOT / "run_probe.py"), *TRAIN], cwd=tmp_path, stdout=-1, stderr=-1, text=True
    )
    _signal_second(command, tmp_path, signal.SIGKILL)
    _, errors = command.communicate(timeout=HANG_SECONDS)
    assert command.returncode == 3
    last = errors.splitlines()[-1]
    assert "the training run's process on GPU 1 died by SIGKILL" in last
    assert "--resume runs" in last
    assert "Traceback" not in errors
    assert "another process" not in errors
    assert "pair.cc" not in errors

    ended = run_probe("--resume", "--json", "report.json", folder=tmp_path)
    assert ended.code == 0, ended.stderr
    training = json.loads((tmp_path / "report.json").read_text())["training"]
    assert training["outcome"] == "completed"
    (run,) = tmp_path.glob("runs/*-train")
    logs = [read_run_log(run / name) for name in ("run.jsonl", "run.rank1.jsonl")]
    assert [step.step for step in logs[0].steps] == list(range(1, training["step"] + 1))
    losses = [{step.step: step.loss for step in log.steps} for log in logs]
    assert losses[0] == losses[1]
    assert (run / "adapter" / "adapter_model.safetensors").exists()

    answered = run_probe("--generate", str(run), folder=tmp_path)
    assert answered.code == 0, answered.stderr


@pytest.mark.slow
def test_a_second_signal_ends_a_run_of_which_one_process_is_halted(tmp_path):
    command = subprocess.Popen(
        [sys.executable, str(ROOT / "run_probe.py"), *TRAIN], cwd=tmp_path, stdout=-1, stderr=-1, text=True
    )
    second = _signal_second(command, tmp_path, signal.SIGSTOP)
    command.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        command.wait(timeout=2)
    command.send_signal(signal.SIGINT)
    _, errors = command.communicate(timeout=HANG_SECONDS)
    assert command.returncode == 128 + signal.SIGINT
    assert "stopped by SIGINT; go on with: " in errors.splitlines()[-1]
    wait_until(lambda: not psutil.pid_exists(second) or psutil.Process(second).status() == psutil.STATUS_ZOMBIE)


@pytest.mark.slow
def test_torchrun_starts_the_same_and_one_signal_to_one_process_stops_all_at_a_checkpoint(tmp_path):
    """And what two have begun by torchrun goes on with `--resume` alone, which starts two itself."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(ROOT / "run_probe.py")]
    arguments = [argument for argument in TRAIN if argument not in ("--num-gpus", "2")]
    with subprocess.Popen([*launcher, *arguments], cwd=tmp_path, stdout=-1, stderr=-1, text=True) as command:
        _signal_second(command, tmp_path, signal.SIGTERM)
        shown, errors = command.communicate(timeout=HANG_SECONDS)
    assert "STOPPED" in shown
    assert errors.count("run_probe.py: ") == errors.count("run_probe.py: go on with: ") == 1
    (run,) = tmp_path.glob("runs/*-train")
    ended = run_probe("--resume", str(run), folder=tmp_path)
    assert ended.code == 0, ended.stderr
    assert read_run_log(run / "run.rank1.jsonl").outcome is read_run_log(run / "run.jsonl").outcome is Outcome.COMPLETED


@pytest.mark.slow
def test_another_number_of_gpus_than_torchrun_has_started_is_one_line(tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(ROOT / "run_probe.py")]
    ended = subprocess.run(
        [*launcher, *TRAIN, "--num-gpus", "3"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert ended.returncode
    assert ended.stderr.count("run_probe.py: ") == ended.stderr.count("--num-gpus 3: the launcher") == 1


def _signal_second(command: subprocess.Popen[str], folder: Path, number: int) -> int:
    """Send the process of the second GPU a signal once there are some steps; return its number."""

    def has_step() -> bool:
        assert command.poll() is None
        logs = folder.glob("runs/*-train/run.rank1.jsonl")
        return any('"kind": "step"' in log.read_text() for log in logs)

    wait_until(has_step)
    children = psutil.Process(command.pid).children(recursive=True)
    workers = [child for child in children if "memory_harness.probes.session.worker" in child.cmdline()]
    (second,) = (w for w in workers if any(file.path.endswith("rank1.jsonl") for file in w.open_files()))
    os.kill(second.pid, number)
    return second.pid
