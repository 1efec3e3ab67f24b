"""`--snapshot` and `--replay` of a snapshot, as a user runs them."""

import pytest

from memory_harness.harness.log.snapshot import load_snapshot
from tests.e2e.commands import run_probe

TINY = ("--preset", "smoke_cpu", "--epochs", "1", "--generate-prompts", "0", "--no-fixes")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tensors", "budget"),
    [("fake", "40 MiB"), pytest.param("real", "40 MiB", marks=pytest.mark.slow)],
    ids=["replayed phases", "live tensors"],
)
def test_a_run_s_snapshot_gives_the_report_of_the_run(tensors, budget, tmp_path):
    flags = (*TINY, "--tensors", tensors, "--budget", budget, "--max-length", "256")
    ran = run_probe(*flags, "--snapshot", "memory.pickle", folder=tmp_path)
    assert ran.code == 1, ran.stderr
    replayed = run_probe("--replay", "memory.pickle", folder=tmp_path)
    assert replayed.code == 1, replayed.stderr
    asked_for = [line for line in ran.stdout.splitlines() if "What was asked for" in line]
    assert asked_for == [line for line in replayed.stdout.splitlines() if "What was asked for" in line]
    assert "simulated on" in replayed.stdout
    (trace,) = load_snapshot(tmp_path / "memory.pickle")["device_traces"]
    after = trace[[event["action"] for event in trace].index("oom") + 1 :]
    assert not [event for event in after if event["action"] == "alloc"]  # what the failure unwound is freed


def test_a_file_of_another_kind_is_not_overwritten(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    ran = run_probe(*TINY, "--snapshot", "notes.txt", folder=tmp_path)
    assert (ran.code, len(ran.stderr.splitlines())) == (2, 1)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_harmful_pickle_is_refused_in_one_line(tmp_path):
    (tmp_path / "evil.pickle").write_bytes(b"\x80\x04cos\nsystem\n(S'touch made'\ntR.")
    ran = run_probe("--replay", "evil.pickle", folder=tmp_path)
    assert (ran.code, len(ran.stderr.splitlines())) == (2, 1)
    assert "os.system" in ran.stderr
    assert not (tmp_path / "made").exists()
