"""Verification: each fix leaves the losses of a real run as its class demands, and what does not is found out."""

from dataclasses import replace

import pytest

from memory_harness.harness.log.records import AgreementRecord, EvalRecord
from memory_harness.probes.findings import Finding
from memory_harness.probes.fixes import FIXES, SPEEDUPS
from memory_harness.probes.plan.tiny import SHORT, WORST, compare_losses, tiny_run
from memory_harness.probes.plan.verify import GPU_NOISE, agreement_of, loss_difference, slowdown_of, why_not_verified
from tests.builders import AS_PUBLISHED, make_log

EXACT, NUMERICAL, REORDERED = FIXES["clear-cache"], FIXES["chunked-loss"], FIXES["bucketed-batches"]


ALWAYS = {"chunked-loss", "eval-batch", "optimizer-8bit", "tiled-mlp"}
"""Of each class some; the others with `-m slow`."""


@pytest.mark.parametrize(
    "name",
    [
        name if name in ALWAYS else pytest.param(name, marks=pytest.mark.slow)
        for name, fix in (FIXES | SPEEDUPS).items()
        if fix.equivalence != "data"
    ],
)
def test_a_real_run_agrees_as_the_class_of_the_fix_demands(name, monkeypatch):
    for file in ("liger_loss", "fast_path"):
        monkeypatch.setattr(f"memory_harness.probes.fixes.{file}.find_spec", lambda name: True)
    fix = (FIXES | SPEEDUPS)[name]
    worst = SHORT if name == "step-graphs" else WORST
    assert fix.apply(worst) is not None, "add what it undoes to WORST in probes/plan/tiny.py"
    agreement = compare_losses(name)
    assert agreement.agrees
    assert not agreement.on_recipe
    if fix.equivalence == "exact":
        assert agreement.difference == 0
    if fix.equivalence == "numerical":
        assert agreement.difference < agreement.tolerance / 10


def test_another_computation_is_found_out():
    other = tiny_run(WORST.with_fields(lora_alpha=512, learning_rate=0.1))
    assert not agreement_of(EXACT, tiny_run(WORST), other).agrees
    assert loss_difference(tiny_run(WORST), other) > 0


def with_losses(losses, source="simulated", seconds=1.0):
    log = make_log(lengths=(300, 500))
    steps = [replace(s, loss=x, seconds=seconds) for s, x in zip(log.steps, losses, strict=False)]
    return replace(log, steps=steps, run=replace(log.run, source=source))


def test_exact_is_every_bit_on_a_cpu_and_the_noise_of_the_gpu_on_one():
    before, after = [2.0, 1.5], [2.0, 1.5 * (1 + GPU_NOISE / 2)]
    assert agreement_of(EXACT, with_losses(before), with_losses(before)).agrees
    assert not agreement_of(EXACT, with_losses(before), with_losses(after)).agrees
    assert agreement_of(EXACT, with_losses(before, "cuda"), with_losses(after, "cuda")).agrees


def test_rounding_agrees_and_more_does_not():
    before = with_losses([2.0, 1.5])
    assert agreement_of(NUMERICAL, before, with_losses([2.001, 1.5])).agrees
    agreement = agreement_of(NUMERICAL, before, with_losses([2.0, 1.6]))
    assert not agreement.agrees
    assert "the loss changes by 0.067" in why_not_verified(NUMERICAL, [], [], agreement)


def test_an_evaluation_counts_as_well():
    logs = [replace(with_losses([2.0]), evals=[EvalRecord(1, 1, 1, 10, loss)]) for loss in (3.0, 3.3)]
    assert loss_difference(*logs) == pytest.approx(0.1)


def test_without_a_loss_nothing_is_claimed():
    assert agreement_of(NUMERICAL, make_log(), make_log()) is None


def test_reordered_steps_have_to_hold_the_same_samples():
    before = make_log(AS_PUBLISHED, lengths=(300, 500))
    swapped = make_log(AS_PUBLISHED, lengths=(500, 300))
    assert agreement_of(REORDERED, before, swapped).agrees
    dropped = replace(before, steps=[replace(s, lengths=s.lengths[:1]) for s in before.steps])
    shorter = replace(before, steps=[replace(s, target_tokens=s.target_tokens - 1) for s in before.steps])
    for other in (dropped, shorter):
        agreement = agreement_of(REORDERED, before, other)
        assert not agreement.agrees
        assert "other samples or tokens" in why_not_verified(REORDERED, [], [], agreement)


def test_a_cause_that_is_still_there_is_not_cured():
    cause = Finding("fragmentation", "error", "", "")
    agrees = AgreementRecord("clear-cache", "exact", True, True, 0.0, 0.0)
    assert why_not_verified(EXACT, [cause], [], agrees) == ""
    assert "fragmentation is still there" in why_not_verified(EXACT, [cause], [cause], agrees)


def test_time_is_compared_only_where_it_was_measured():
    fast, slow = (with_losses([1.0, 1.0, 1.0], "cuda", seconds) for seconds in (1.0, 1.5))
    assert slowdown_of(fast, slow) == pytest.approx(1.5)
    assert slowdown_of(with_losses([1.0, 1.0]), with_losses([1.0, 1.0])) is None


def test_a_fix_that_changes_nothing_in_the_tiny_run_is_not_compared(monkeypatch):
    """A run agrees with itself, whatever the fix does."""
    monkeypatch.setitem(FIXES, "clear-cache", replace(EXACT, change=lambda config: None))
    assert compare_losses("clear-cache") is None


def test_what_promises_nothing_is_not_run():
    agreement = compare_losses("truncation")
    assert (agreement.equivalence, agreement.agrees, agreement.difference) == ("data", True, None)
