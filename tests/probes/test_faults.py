"""Every fault against every detector: a real run with the mistake in it, and what is said of its log."""

import inspect
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.runlog import RunLog
from probes.causes import CAUSES
from probes.detectors import DETECTORS, detect
from probes.faults import FAULTS, Fault, run_with, tiny_config
from probes.faults.__main__ import NOT_SHOWN, wrong_errors
from probes.faults.base import MISTAKE
from probes.findings import UNEXPLAINED_GROWTH

ROOT = Path(__file__).resolve().parents[2]

NAMES_ITS_LINE = {
    "retained-graph",
    "unbackwarded-loss",
    "kept-losses",
    "hook-holds-activations",
    "logits-hoarded",
    "outputs-hoarded",
    "epoch-hoard",
    "reference-cycle",
    "autocast-cache",
    "unexplained-growth",
}
"""Faults whose memory grows long enough for the closer look: the finding names the line of the mistake."""

FILLS_ITS_PROCESS = {"logits-hoarded-host"}
"""Resident memory shows only in a process that has not freed much before."""


def mistaken_line(fault: Fault) -> str:
    """Return `file:line` of the line that the fault's file marks."""
    path = Path(inspect.getsourcefile(fault.install.__wrapped__))
    (line,) = [n for n, text in enumerate(path.read_text("utf-8").splitlines(), 1) if text.endswith(MISTAKE)]
    return f"{path.relative_to(ROOT).as_posix()}:{line}"


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", sorted(set(FAULTS) - FILLS_ITS_PROCESS))
def test_each_fault_is_called_by_its_cause_and_by_no_other(name):
    fault = FAULTS[name]
    torch.manual_seed(0)
    findings = detect(run_with(fault, tiny_config()))
    own = [finding for finding in findings if finding.cause == fault.cause]
    assert len(own) == 1, [finding.title for finding in findings]
    assert not wrong_errors(fault, findings)
    assert own[0].explanation
    if name in NAMES_ITS_LINE:
        assert own[0].where == mistaken_line(fault)


@pytest.mark.parametrize("name", sorted(FILLS_ITS_PROCESS))
def test_faults_of_host_memory_are_found_in_a_process_of_their_own(name):
    command = [sys.executable, "-W", "ignore", "-m", "probes.faults", name]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{name}: warning" in result.stdout


def test_every_cause_that_one_process_can_show_has_a_fault_and_a_detector():
    shown = {fault.cause for fault in FAULTS.values()} - {UNEXPLAINED_GROWTH}
    assert shown == set(CAUSES) - set(NOT_SHOWN) == set(DETECTORS)
    assert len(shown) >= 30
    assert all(name == fault.name for name, fault in FAULTS.items())


def test_an_unknown_fault_is_refused_with_one_line():
    command = [sys.executable, "-W", "ignore", "-m", "probes.faults", "retained-grap"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "did you mean" in result.stdout
    assert "retained-graph" in result.stdout


@pytest.mark.usefixtures("one_thread")
def test_a_leak_that_fills_the_card_is_the_error_that_ended_the_run():
    log = run_with(FAULTS["retained-graph"], tiny_config().with_fields(budget_bytes=26 * 2**20))
    assert log.fatal_oom is not None
    (error,) = [finding for finding in detect(log) if finding.severity == "error"]
    assert error.cause == "retained-graph"
    assert error.where == mistaken_line(FAULTS["retained-graph"])


@pytest.mark.usefixtures("one_thread")
def test_a_running_leak_is_forecast_as_a_range_that_holds():
    budget = 26 * 2**20
    log = run_with(FAULTS["retained-graph"], tiny_config().with_fields(budget_bytes=budget))
    died_at = log.fatal_oom.step
    early = first_steps(replace(log, run=replace(log.run, total_steps=100)), 12)
    (finding,) = [f for f in detect(early) if f.cause == "retained-graph"]
    assert finding.severity == "error"
    first, last = finding.evidence["budget_from_step"], finding.evidence["budget_until_step"]
    assert first <= died_at <= last
    assert f"between steps {first} and {last}" in finding.explanation


def first_steps(log: RunLog, num_steps: int) -> RunLog:
    """Return the log as it was when so many steps had ended."""
    return RunLog(
        log.run,
        begins=log.begins,
        phases=[p for p in log.phases if p.step <= num_steps],
        steps=log.steps[:num_steps],
        survivors=[s for s in log.survivors if s.step <= num_steps],
    )


LARGE = tiny_config().with_fields(
    dtype="float16", tensors="fake", samples=14, max_length=256, batching="padded", epochs=1, eval_batch_size=1
)
"""models of any size, as their tensors hold nothing; not compiled, so that each step has the mistake in it"""


def test_the_cache_that_an_8b_evaluation_builds_is_128_kib_a_token():
    log = run_with(FAULTS["eval-use-cache"], LARGE.with_fields(model="llama-3.1-8b", max_steps=1, eval_every=1))
    (finding,) = [f for f in detect(log) if f.cause == "eval-use-cache"]
    assert finding.evidence["cache_bytes"] == 256 * 128 * 1024


def test_a_graph_kept_by_a_large_model_ends_the_run():
    log = run_with(FAULTS["retained-graph"], LARGE.with_fields(model="llama-3.2-1b", budget_bytes=5 * 2**30))
    assert log.fatal_oom is not None
    (error,) = [finding for finding in detect(log) if finding.severity == "error"]
    assert error.cause == "retained-graph"


@pytest.mark.usefixtures("one_thread")
def test_a_run_of_fewer_steps_than_an_epoch_ends_there():
    log = run_with(Fault("none", "", "no mistake"), tiny_config().with_fields(max_steps=2))
    assert len(log.steps) == log.run.total_steps == 2
