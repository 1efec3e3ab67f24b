"""Two processes that train together, by the command line: one is killed, the run goes on, replies come from one GPU."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from memory_harness.harness.log.runlog import read_run_log
from tests.e2e.commands import HANG_SECONDS, ROOT, run_probe, wait_until

TRAIN = ("--preset", "smoke_cpu", "--num-gpus", "2", "--train", "--force", "--no-compare-base", "--save-every", "1")


@pytest.mark.slow
def test_a_killed_process_ends_the_run_in_one_clear_line_and_it_goes_on(tmp_path):
    command = subprocess.Popen(
        [sys.executable, str(ROOT / "run_probe.py"), *TRAIN], cwd=tmp_path, stdout=-1, stderr=-1, text=True
    )
    _kill_second(command, tmp_path)
    _, errors = command.communicate(timeout=HANG_SECONDS)
    assert command.returncode == 3
    assert "the training run on GPU 1 died by SIGKILL" in errors.splitlines()[-1]
    assert "Traceback" not in errors

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


def _kill_second(command: subprocess.Popen[str], folder: Path) -> None:
    """Kill the process of the second GPU once there are some steps."""

    def has_step() -> bool:
        assert command.poll() is None
        logs = folder.glob("runs/*-train/run.rank1.jsonl")
        return any('"kind": "step"' in log.read_text() for log in logs)

    wait_until(has_step)
    children = psutil.Process(command.pid).children()
    workers = [child for child in children if "memory_harness.probes.session.worker" in child.cmdline()]
    (second,) = (w for w in workers if any(file.path.endswith("rank1.jsonl") for file in w.open_files()))
    os.kill(second.pid, signal.SIGKILL)
