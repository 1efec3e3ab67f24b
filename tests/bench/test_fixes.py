"""The bench of fixes: it covers the ladder, and what it compares is the same run with and without the fix."""

import pytest

from memory_harness.probes.fixes import FIXES
from tests.bench.fixes import CASES, REPEATED, STOCK, agreement, ladder_runs, ladder_table, planned_runs, variable_runs


@pytest.fixture(autouse=True)
def liger_is_installed(monkeypatch):
    monkeypatch.setattr("memory_harness.probes.fixes.liger_loss.find_spec", lambda name: True)


def test_every_fix_is_measured_where_it_changes_something():
    assert [case.fix for case in CASES] == [case.fix for case in CASES if case.after != case.before]
    assert {case.fix for case in CASES} == set(FIXES)


def test_runs_have_names_of_their_own():
    runs = [*ladder_runs(), *variable_runs(["expandable-segments"]), *planned_runs(["eval-batch"])]
    assert len({run.name for run in set(runs)}) == len(set(runs))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.fix)
def test_after_is_before_with_the_fix(case):
    assert case.after.config == FIXES[case.fix].apply(case.before.config)


def test_a_kernel_that_is_missing_is_left_out(monkeypatch):
    with_it = ladder_runs()
    monkeypatch.setattr("memory_harness.probes.fixes.liger_loss.find_spec", lambda name: None)
    assert len(ladder_runs()) == len(with_it) - 1
    assert STOCK.train.loss == "full"


def result(losses, peak=10 * 2**30, seconds=0.5):
    return {
        "outcome": "completed",
        "peak_allocated_bytes": peak,
        "peak_reserved_bytes": peak,
        "seconds_per_step": seconds,
        "losses": losses,
        "eval_loss": losses[-1],
        "tokens_per_step": [10] * len(losses),
        "num_steps": len(losses),
    }


def test_the_table_shows_before_after_and_how_losses_agree():
    case = next(case for case in CASES if case.fix == "chunked-loss")
    results = {case.before.name: result([2.0, 1.0]), case.after.name: result([2.0, 1.001], 5 * 2**30, 0.6)}
    results |= {REPEATED[0].name: result([2.0, 1.0002])}
    slower = {case.before.name: result([2.0], seconds=0.9)}  # on another machine, later
    table = ladder_table({"measured": [results, slower], "predicted": []})
    row = next(line for line in table.splitlines() if line.startswith("| chunked-loss"))
    assert "10.00 → 5.00" in row
    assert "0.500 → 0.600 | 1.0e-03 |" in row
    assert "the same twice: padded" in table


def test_reordered_runs_have_to_hold_the_same_tokens():
    case = next(case for case in CASES if case.fix == "bucketed-batches")
    results = {case.before.name: result([2.0, 1.0]), case.after.name: result([1.0, 2.0])}
    assert agreement(case, results) == "same tokens in as many steps"
    results[case.after.name]["tokens_per_step"] = [10, 9]
    assert agreement(case, results) == "not the same tokens"
