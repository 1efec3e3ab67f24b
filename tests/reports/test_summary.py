"""The verdict, its sentence, and the levels that charts show."""

from dataclasses import replace

import pytest

from memory_harness.configs.units import GIB
from memory_harness.harness.log.records import EndRecord, Outcome, Phase
from memory_harness.probes.findings import FixResult
from memory_harness.reports.levels import column_levels, phase_levels
from memory_harness.reports.summary import (
    ProbeResult,
    exit_code,
    result_of_log,
    verdict_banner,
    verdict_of,
    verdict_sentence,
)
from tests.builders import AS_PUBLISHED, Failure, as_published_oom, make_log
from tests.reports.results import EVAL_BATCH_FIX, FITS, fixed_result, unfixed_result


def test_the_verdict_follows_the_outcomes():
    oom = as_published_oom()
    assert verdict_of(FITS, None) == "pass"
    assert verdict_of(oom, None) == "fail"
    assert verdict_of(oom, oom) == "fail"
    assert verdict_of(oom, FITS, [EVAL_BATCH_FIX]) == "pass_with_fixes"


def test_an_applied_fix_that_was_not_verified_does_not_pass():
    assert verdict_of(as_published_oom(), FITS, [replace(EVAL_BATCH_FIX, verified=False)]) == "fail"
    tried = replace(EVAL_BATCH_FIX, verified=False, applied=False)
    assert verdict_of(as_published_oom(), FITS, [EVAL_BATCH_FIX, tried]) == "pass_with_fixes"


def test_exit_codes():
    died = replace(FITS, end=EndRecord(Outcome.ERROR, 20, 10.0, "KeyError: 'loss'"))
    results = [result_of_log(FITS), fixed_result(samples=4000), unfixed_result(), result_of_log(died)]
    assert [exit_code(result) for result in results] == [0, 0, 1, 3]


def test_the_sentence_of_the_published_failure():
    assert verdict_sentence(fixed_result(samples=4000)) == (
        "Does not fit as configured: the evaluation at the end of epoch 1 of 2 (step 1600 of 3200) asks for 7.83 GiB "
        "at once; with 1 fix it fits (peak 12.36 of 14.40 GiB)."
    )


def test_the_sentence_without_fixes_says_what_was_taken():
    assert verdict_sentence(result_of_log(as_published_oom())).endswith("at once, with 12.32 of 14.40 GiB taken.")


def test_the_sentence_of_a_run_that_fits():
    assert verdict_sentence(result_of_log(FITS)) == "Fits as configured: the peak is 12.36 of 14.40 GiB."


def test_the_sentence_when_no_fix_helps():
    assert verdict_sentence(unfixed_result()).endswith("at once; no fix that was tried makes it fit.")


def test_the_sentence_when_the_fixed_run_fails_elsewhere():
    config = AS_PUBLISHED.with_fields(eval_batch_size=1)
    elsewhere = make_log(config, failure=Failure(Phase.BACKWARD, 20, 3 * GIB))
    result = ProbeResult(as_published_oom(), [], "fail", elsewhere, [EVAL_BATCH_FIX])
    assert "; even with 1 fix, the backward pass of step 20 of 32 asks for 3.00 GiB at once." in verdict_sentence(
        result
    )


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (None, "the log ends after step 32 of 32"),
        (EndRecord(Outcome.ERROR, 5, 1.0, "no space left on the disk"), "no space left on the disk"),
        (EndRecord(Outcome.STOPPED, 5, 1.0), "the run was stopped"),
    ],
)
def test_a_run_that_did_not_finish_is_not_called_too_large(end, words):
    sentence = verdict_sentence(result_of_log(replace(FITS, end=end)))
    assert sentence.startswith("Not decided")
    assert words in sentence


@pytest.mark.parametrize("end", [None, FITS.end])
def test_what_takes_more_than_a_budget_that_is_named_afterwards_does_not_fit(end):
    log = replace(FITS, run=replace(FITS.run, budget_bytes=FITS.peak_allocated_bytes - 1), end=end)
    result = result_of_log(log)
    assert (exit_code(result), verdict_banner(result).title) == (1, "DOES NOT FIT")
    assert verdict_sentence(result).startswith("Does not fit: the peak is")


@pytest.mark.parametrize("phase", list(Phase))
def test_every_phase_has_words(phase):
    oom = replace(as_published_oom().ooms[0], phase=phase)
    sentence = verdict_sentence(result_of_log(replace(as_published_oom(), ooms=[oom])))
    assert phase not in sentence
    assert "7.83 GiB" in sentence


def test_the_failing_phase_shows_what_it_held_and_asked_for():
    level = phase_levels(as_published_oom())[Phase.EVAL]
    oom = as_published_oom().ooms[0]
    assert (level.allocated_bytes, level.requested_bytes) == (oom.allocated_bytes, 8405385216)


def test_an_earlier_batch_that_took_more_is_not_added_to_the_request():
    log = as_published_oom()
    oom = log.fatal_oom
    earlier = next(p for p in log.phases if p.phase is Phase.FORWARD)
    earlier = replace(earlier, phase=Phase.EVAL, after=replace(earlier.after, peak_allocated_bytes=13 * GIB))
    level = phase_levels(replace(log, phases=[*log.phases, earlier]))[Phase.EVAL]
    assert (level.allocated_bytes, level.met_bytes) == (13 * GIB, oom.allocated_bytes)
    assert level.top_bytes == oom.allocated_bytes + oom.requested_bytes


def test_a_report_on_a_log_has_no_fixes():
    result = result_of_log(as_published_oom())
    assert (result.verdict, result.with_fixes, result.fixes) == ("fail", None, [])


@pytest.mark.parametrize("num_columns", [1, 7, 32, 500])
def test_the_timeline_places_the_failure_where_it_came(num_columns):
    columns = column_levels(as_published_oom(), num_columns)
    assert len(columns) == num_columns
    (failed,) = [i for i, level in enumerate(columns) if level.requested_bytes]
    assert failed == 15 * num_columns // 32
    assert all(level.top_bytes == 0 for level in columns[failed + 1 :])


def test_an_applied_fix_counts_and_a_tried_one_does_not():
    tried = FixResult("clear-cache", "", ("fragmentation",), "exact", True, 1, 1, applied=False)
    result = fixed_result()
    assert "with 1 fix it fits" in verdict_sentence(replace(result, fixes=[*result.fixes, tried]))
