"""What changed between two runs: the right verdict, the same from either side, and nothing made of noise."""

from __future__ import annotations

from dataclasses import replace

import pytest

from memory_harness.configs.units import GIB, MIB
from memory_harness.harness.log.errors import LogError
from memory_harness.harness.log.records import Outcome, Phase
from memory_harness.probes.compare import ALLOCATED_NOISE_SHARE, TIME_NOISE_SHARE, compare
from tests.builders import AS_PUBLISHED, as_published_oom, make_log

LOG = make_log()
OPPOSITE = {"same": "same", "worse": "better", "better": "worse", "only in A": "only in B", "only in B": "only in A"}


def changed(log, verdict):
    return {(change.kind, change.phase) for change in log.changes if change.verdict == verdict}


def with_more(log, phase, num_bytes, reserved=0):
    """The log with higher peaks in a phase."""

    def higher(record):
        stats = record.after
        return replace(
            record,
            after=replace(
                stats,
                peak_allocated_bytes=stats.peak_allocated_bytes + num_bytes,
                peak_reserved_bytes=stats.peak_reserved_bytes + reserved,
            ),
        )

    return replace(log, phases=[higher(r) if r.phase is phase else r for r in log.phases])


def measured(log, slower=1.0):
    """The log as if it had been measured, its forward passes slower."""
    phases = [replace(p, seconds=p.seconds * (slower if p.phase is Phase.FORWARD else 1)) for p in log.phases]
    return replace(log, run=replace(log.run, source="cuda"), phases=phases)


def cut_off(log, after_step):
    """The log of the same run, killed after a step."""
    return replace(
        log,
        phases=[p for p in log.phases if p.step <= after_step],
        steps=[s for s in log.steps if s.step <= after_step],
        begins=[b for b in log.begins if b.step <= after_step],
        end=None,
    )


VARIANTS = {
    "identical": LOG,
    "worse peak": with_more(LOG, Phase.BACKWARD, GIB),
    "more reserved": make_log(cached_bytes=int(1.5 * GIB)),
    "growing": make_log(leak_per_step=10 * MIB),
    "out of memory": as_published_oom(),
    "cut off": cut_off(LOG, 9),
    "another batch": make_log(AS_PUBLISHED.with_fields(eval_batch_size=1)),
    "shorter": make_log(AS_PUBLISHED.with_fields(samples=20)),
    "no evaluation": replace(LOG, phases=[p for p in LOG.phases if p.phase is not Phase.EVAL]),
    "measured": measured(LOG),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_log_is_like_itself(name):
    comparison = compare(VARIANTS[name], VARIANTS[name])
    assert comparison.verdict == "same"
    assert {change.verdict for change in comparison.changes} == {"same"}
    assert comparison.differences == []


@pytest.mark.parametrize("first", VARIANTS)
@pytest.mark.parametrize("second", VARIANTS)
def test_the_other_way_round_says_the_opposite(first, second):
    there, back = (compare(VARIANTS[a], VARIANTS[b]) for a, b in ((first, second), (second, first)))
    assert [OPPOSITE[change.verdict] for change in there.changes] == [change.verdict for change in back.changes]
    assert OPPOSITE[there.outcome] == back.outcome
    forth = {(difference.name, difference.before, difference.after) for difference in there.differences}
    assert forth == {(difference.name, difference.after, difference.before) for difference in back.differences}


def test_a_higher_peak_is_worse_where_it_is():
    comparison = compare(LOG, with_more(LOG, Phase.BACKWARD, 3 * GIB))
    assert comparison.verdict == "worse"
    assert changed(comparison, "worse") == {("peak allocated", Phase.BACKWARD)}
    comparison = compare(LOG, with_more(LOG, Phase.EVAL, 3 * GIB))
    assert changed(comparison, "worse") == {("peak allocated", None), ("peak allocated", Phase.EVAL)}


def test_a_peak_within_the_noise_is_no_change():
    peak = LOG.peaks()[Phase.BACKWARD].peak_allocated_bytes
    noise = int(peak * ALLOCATED_NOISE_SHARE)
    assert compare(LOG, with_more(LOG, Phase.BACKWARD, noise)).verdict == "same"
    assert compare(LOG, with_more(LOG, Phase.BACKWARD, noise + MIB)).verdict == "worse"


def test_more_reserved_is_worse():
    comparison = compare(LOG, with_more(LOG, Phase.CHECKPOINT, 0, reserved=GIB))
    assert ("peak reserved", Phase.CHECKPOINT) in changed(comparison, "worse")
    assert changed(comparison, "better") == set()


def test_a_lower_peak_is_better():
    comparison = compare(VARIANTS["worse peak"], LOG)
    assert comparison.verdict == "better"
    assert comparison.outcome == "same"


def test_better_here_and_worse_there_is_worse():
    mixed = with_more(with_more(LOG, Phase.BACKWARD, -GIB), Phase.OPTIMIZER, GIB)
    comparison = compare(LOG, mixed)
    assert comparison.verdict == "worse"
    assert changed(comparison, "better") >= {("peak allocated", Phase.BACKWARD)}


def test_growth_is_found_and_told_per_step():
    comparison = compare(LOG, make_log(leak_per_step=1024 * 1024))
    assert ("growth per step", None) in changed(comparison, "worse")
    (growth,) = [change for change in comparison.changes if change.kind == "growth per step"]
    assert (growth.before, growth.after) == (0, MIB)


def test_some_kept_scalars_are_no_growth():
    comparison = compare(LOG, make_log(leak_per_step=1024))
    assert ("growth per step", None) not in changed(comparison, "worse")


def test_running_out_of_memory_is_worse_and_counts_what_was_asked_for():
    comparison = compare(LOG, as_published_oom())
    assert comparison.outcome == "worse"
    assert comparison.up_to_step == 16
    (needed,) = [c for c in comparison.changes if (c.kind, c.phase) == ("peak allocated", Phase.EVAL)]
    oom = as_published_oom().fatal_oom
    assert needed.after == oom.allocated_bytes + oom.requested_bytes


def test_a_run_that_completes_is_better_than_one_that_dies_whatever_it_takes():
    completes = with_more(LOG, Phase.BACKWARD, GIB)
    assert compare(LOG, completes).verdict == "worse"
    assert compare(VARIANTS["out of memory"], completes).verdict == "better"
    assert compare(completes, VARIANTS["out of memory"]).verdict == "worse"


def test_what_only_one_run_got_to_is_no_difference():
    """The second epoch is heavier: a run that died after the first is compared with the first alone."""
    heavy = replace(LOG, phases=[with_more(LOG, p.phase, 5 * GIB).phases[i] if p.step > 16 else p
                                 for i, p in enumerate(LOG.phases)])  # fmt: skip
    assert compare(cut_off(LOG, 16), heavy).up_to_step == 16
    assert changed(compare(cut_off(LOG, 16), heavy), "worse") == set()
    assert changed(compare(LOG, heavy), "worse") >= {("peak allocated", None), ("peak allocated", Phase.FORWARD)}


def test_a_log_that_was_cut_off_is_not_known_to_fit():
    comparison = compare(LOG, cut_off(LOG, 9))
    assert (comparison.outcome, comparison.up_to_step, comparison.verdict) == ("worse", 9, "worse")
    assert changed(comparison, "worse") == set()


def test_a_phase_of_one_run_only_is_listed_and_judged_as_neither():
    comparison = compare(LOG, VARIANTS["no evaluation"])
    assert changed(comparison, "only in A") == {("peak allocated", Phase.EVAL), ("peak reserved", Phase.EVAL)}
    assert ("peak allocated", Phase.EVAL) not in changed(comparison, "better")


def test_times_are_compared_where_both_were_measured():
    slower = measured(LOG, 1 + 2 * TIME_NOISE_SHARE)
    assert ("time", Phase.FORWARD) in changed(compare(measured(LOG), slower), "worse")
    assert compare(measured(LOG), measured(LOG, 1 + TIME_NOISE_SHARE / 2)).verdict == "same"
    comparison = compare(LOG, slower)
    assert not [change for change in comparison.changes if change.kind == "time"]
    assert not comparison.times_compared
    assert comparison.sources == ("simulated", "cuda")


def test_settings_and_conditions_that_differ_are_listed():
    other = make_log(AS_PUBLISHED.with_fields(eval_batch_size=1, learning_rate=1e-4, output="elsewhere"))
    other = replace(other, run=replace(other.run, environment={**other.run.environment, "torch": "2.12.0"}))
    found = {difference.name: (difference.before, difference.after) for difference in compare(LOG, other).differences}
    assert found == {
        "--eval-batch-size": ("8", "1"),
        "--learning-rate": ("0.0002", "0.0001"),
        "torch": ("2.13.0", "2.12.0"),
    }


def test_a_loop_without_a_configuration_is_compared_all_the_same():
    other = replace(LOG, run=replace(LOG.run, config={}, model=None))
    assert {d.name for d in compare(LOG, other).differences} == {"model", "weights"}


@pytest.mark.parametrize("name", ["A", "B"])
def test_a_log_in_which_nothing_ended_is_refused(name):
    empty = replace(LOG, phases=[], steps=[])
    logs = (empty, LOG) if name == "A" else (LOG, empty)
    with pytest.raises(LogError, match=f"--compare: no phase ended in {name}"):
        compare(*logs)


def test_outcomes_have_an_order():
    stopped = make_log(outcome=Outcome.STOPPED)
    assert compare(LOG, stopped).outcome == "worse"
    assert compare(as_published_oom(), stopped).outcome == "better"


def test_a_run_that_was_cut_off_early_is_no_better_than_one_that_died_later():
    died = as_published_oom()
    early = make_log(outcome=Outcome.ERROR)
    early = replace(early, phases=[record for record in early.phases if record.step < died.fatal_oom.step])
    assert compare(died, early).outcome == compare(early, died).outcome == "same"
