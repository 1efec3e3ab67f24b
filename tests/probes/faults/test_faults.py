"""Every fault against every detector: a real run with the mistake in it, and what is said of its log."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers

from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.detectors import DETECTORS, detect
from memory_harness.probes.detectors.causes import load_causes
from memory_harness.probes.faults import FAULTS, Fault, run_with, tiny_config
from memory_harness.probes.faults.__main__ import NOT_SHOWN, main, wrong_errors
from memory_harness.probes.faults.base import MISTAKE
from memory_harness.probes.findings import UNEXPLAINED_GROWTH

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "probes" / "faults"
SITE_PACKAGES = Path(transformers.__file__).parents[1]

NO_LINE = {
    "fragmentation": "the order of the lengths",
    "kbit-upcast": "a setting",
    "experts-not-quantised": "what loading leaves as it is",
    "optimizer-rebuilt": "it rises once or twice, and only steps that go on rising are looked at closely",
    "padding-to-max": "a setting",
    "truncation-missing": "the data",
    "bucketing-raises-peak": "a setting",
    "attention-math-fallback": "a setting, on this card",
    "optimizer-lazy": "a setting; the optimizer allocates rightly",
    "other-process": "made by another process",
    "outside-growth": "made by a library, outside of PyTorch's allocator",
    "graph-pools": "pools are told by their number and size",
    "pinned-cache": "host memory outside of tensors, of which only the total is known",
    "host-leak": "host memory outside of tensors, of which only the process's total is known",
    "checkpointing-lost": "the line flips a switch; it neither makes nor holds memory, and the finding says since when",
    "head-trainable": "the line flips a switch; it neither makes nor holds memory",
    "eval-with-grad": "the line flips a switch; the model's own forward makes the graph",
    "zero-gradient": "no memory is at fault",
    "eval-use-cache": "the line flips a switch; the model's own forward makes the cache",
}
"""Faults whose finding names no line, and why there is none that makes or holds the memory."""

ASKS_AT = {
    "eval-batch-logits": "cross_entropy(",
    "logits-fp32-copies": "backward()",
    "model-states-exceed-budget": "_proj(",
    "longest-sample": "scaled_dot_product_attention(",
}
"""Faults of a setting or of the data that end the run: the line that asked for the last bytes, a library's own."""

FILLS_ITS_PROCESS = {"logits-hoarded-host"}
"""Resident memory shows only in a process that has not freed much before."""

ALWAYS = {"eval-batch-logits", "retained-graph", "unexplained-growth"}
"""Of each kind of detector some; the others, and so every fault, with `-m slow`."""


GROW_WITHOUT_END = {
    "adapters-accumulate", "kept-losses", "metric-never-reset", "retained-graph", "tensors-logged",
}  # fmt: skip


def mistaken_line(fault: Fault) -> str:
    """Return `file:line` of the line that the fault's file marks."""
    path = FOLDER / f"{fault.name.replace('-', '_')}.py"
    lines = [n for n, text in enumerate(path.read_text("utf-8").splitlines(), 1) if text.endswith(MISTAKE)]
    assert len(lines) == 1, f"mark one line of {path.name} with `{MISTAKE}`, or say in NO_LINE why there is none"
    return f"{path.relative_to(ROOT).as_posix()}:{lines[0]}"


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    "name",
    [
        name if name in ALWAYS else pytest.param(name, marks=pytest.mark.slow)
        for name in sorted(set(FAULTS) - FILLS_ITS_PROCESS)
    ],
)
def test_each_fault_is_called_by_its_cause_and_by_no_other(name):
    fault = FAULTS[name]
    torch.manual_seed(0)
    findings = detect(run_with(fault, tiny_config()))
    own = [finding for finding in findings if finding.cause == fault.cause]
    if name in GROW_WITHOUT_END:
        assert own[0].severity == "error", "what a watched script is told, a planted mistake is told too"
    assert len(own) == 1, [finding.title for finding in findings]
    assert not wrong_errors(fault, findings)
    assert own[0].explanation
    if name in NO_LINE:
        assert own[0].where is None, NO_LINE[name]
    elif name in ASKS_AT:
        assert ASKS_AT[name] in source_line(own[0].where)
    else:
        assert own[0].where == mistaken_line(fault)


def source_line(where: str) -> str:
    """Return the line of this project's or a library's code."""
    path, _, line = where.rpartition(":")
    file = next(file for folder in (ROOT, SITE_PACKAGES) if (file := folder / path).exists())
    return file.read_text("utf-8").splitlines()[int(line) - 1]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FILLS_ITS_PROCESS))
def test_faults_of_host_memory_are_found_in_a_process_of_their_own(name):
    command = [sys.executable, "-W", "ignore", "-m", "memory_harness.probes.faults", name]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{name}: " in result.stdout
    assert mistaken_line(FAULTS[name]) in "".join(result.stdout.split("│")).replace(" ", "").replace("\n", "")


def test_the_document_is_up_to_date():
    rows = [line.split(" | ") for line in (FOLDER / "README.md").read_text("utf-8").splitlines() if line[:3] == "| `"]
    found = {name.strip("| `"): (title, cause, where.strip("`")) for name, title, cause, where, *_ in rows}
    assert list(found) == list(FAULTS), "made anew by the command at its head"
    for name, (title, cause, where) in found.items():
        fault = FAULTS[name]
        assert title == fault.title
        assert cause.startswith(f"`{fault.cause}` (")
        if name not in ASKS_AT:
            assert where.strip() == ("" if name in NO_LINE else mistaken_line(fault))


def test_every_cause_that_one_process_can_show_has_a_fault_and_a_detector():
    shown = {fault.cause for fault in FAULTS.values()} - {UNEXPLAINED_GROWTH}
    assert shown == set(load_causes()) - set(NOT_SHOWN) == set(DETECTORS) - {UNEXPLAINED_GROWTH} - set(NOT_SHOWN)
    assert len(shown) >= 30
    assert all(name == fault.name for name, fault in FAULTS.items())


def test_an_unknown_fault_is_refused_with_one_line(capsys):
    assert main(["retained-grap"]) == 2
    out = capsys.readouterr().out
    assert "did you mean" in out
    assert "retained-graph" in out


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


@pytest.mark.slow
def test_a_graph_kept_by_a_large_model_ends_the_run():
    log = run_with(FAULTS["retained-graph"], LARGE.with_fields(model="llama-3.2-1b", budget_bytes=round(2.4 * 2**30)))
    assert log.fatal_oom is not None
    (error,) = [finding for finding in detect(log) if finding.severity == "error"]
    assert error.cause == "retained-graph"


@pytest.mark.usefixtures("one_thread")
def test_a_run_of_fewer_steps_than_an_epoch_ends_there():
    log = run_with(Fault("none", "no mistake"), tiny_config().with_fields(max_steps=2))
    assert len(log.steps) == log.run.total_steps == 2
