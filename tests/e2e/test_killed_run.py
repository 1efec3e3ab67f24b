"""A run that is killed leaves a log that says what it was doing, wherever its last line was cut."""

import json
import os
import random
import signal
import subprocess
import sys

import pytest

from memory_harness.configs.cli import parse_args
from memory_harness.harness.log.errors import LogError
from memory_harness.harness.log.records import Outcome
from memory_harness.harness.log.runlog import read_run_log
from memory_harness.reports.summary import result_of_log, verdict_sentence
from memory_harness.reports.terminal import make_console, print_report
from tests.e2e.commands import ROOT

FLAGS = ["--preset", "smoke_cpu", "--generate-prompts", "0"]


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The log of a worker that was killed in its third step."""
    log = tmp_path_factory.mktemp("killed") / "run.jsonl"
    request = {
        "config": parse_args(FLAGS).config.to_dict(),
        "log": str(log),
        "counts": [],
        "snapshot": None,
        "fault": None,
    }
    worker = [sys.executable, "-W", "ignore", "-m", "memory_harness.probes.session.worker"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        worker,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        for line in process.stdout:
            if line.startswith("{") and json.loads(line).get("steps", [0])[0] >= 3:
                break
        process.send_signal(signal.SIGKILL)
        process.wait()
    return log


def whole_lines(content):
    """Return the records of the lines that are complete."""
    return [json.loads(line) for line in content.split(b"\n")[:-1]]


def test_the_report_of_a_killed_run_names_its_last_phase(killed):
    last = [record for record in whole_lines(killed.read_bytes()) if record["kind"] == "phase_begin"][-1]
    command = [sys.executable, "run_probe.py", "--replay", str(killed)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 3, result.stderr
    assert "NOT DECIDED" in result.stdout
    assert f"in {last['phase']}" in " ".join(result.stdout.replace("│", " ").split())


def test_a_log_cut_at_any_byte_names_its_last_phase(killed, tmp_path, capsys):
    content, path = killed.read_bytes(), tmp_path / "cut.jsonl"
    ends = [i for i, byte in enumerate(content) if byte == ord("\n")]
    near_line_ends = {end + offset for end in ends for offset in (-1, 0, 1)}
    cuts = sorted(near_line_ends | set(random.Random(0).sample(range(len(content)), 200)))
    for cut in cuts:
        path.write_bytes(content[:cut])
        records = whole_lines(content[: cut + 1] if content[cut : cut + 1] == b"\n" else content[:cut])
        if not records:
            with pytest.raises(LogError):
                read_run_log(path)
            continue
        log = read_run_log(path)
        begun = [record["phase"] for record in records if record["kind"] == "phase_begin"]
        assert (log.last_phase, log.outcome) == (begun[-1] if begun else None, Outcome.ERROR)
        if begun:
            assert f"in {begun[-1]}" in verdict_sentence(result_of_log(log))
        if cut % 20 == 0:
            print_report(result_of_log(log), make_console())
            assert "NOT DECIDED" in capsys.readouterr().out
