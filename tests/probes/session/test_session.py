"""Fixes that a probe tries, and what it says of each."""

import shutil
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from memory_harness.harness.log.errors import LogError
from memory_harness.harness.log.records import AgreementRecord, Outcome
from memory_harness.probes.detectors import detect
from memory_harness.probes.findings import OtherCount
from memory_harness.probes.plan.choose import Option, Plan, Prediction
from memory_harness.probes.plan.verify import NOT_COMPARED
from memory_harness.probes.session import session as session_module
from memory_harness.probes.session.session import (
    FIRST_LOG,
    OUTCOME_FILE,
    Session,
    find_fixes,
    first_answer,
    run_session,
    session_of_folder,
    write_outcome,
)
from tests.builders import AS_PUBLISHED, as_published_oom, make_log

MEASURED = Path(__file__).parents[2] / "bench" / "results" / "h100_t4_probe"


def test_a_worker_runs_all_fixes_that_replay_what_it_has_recorded(monkeypatch, tmp_path):
    num_started, served = 0, []

    class StandIn:
        def __init__(self, number: int) -> None:
            self.number = number

        def warm_up(self) -> None:
            pass

        def run(self, config, log, title, *others):
            served.append(self.number)
            return as_published_oom()

        def other_counts(self, config, counts):
            return []

    @contextmanager
    def start(config, data=None):
        nonlocal num_started
        num_started += 1
        yield StandIn(num_started)

    narrow = AS_PUBLISHED.with_fields(kbit_upcast=False)
    tried = [
        AS_PUBLISHED.with_fields(eval_batch_size=1),
        narrow,
        narrow.with_fields(eval_batch_size=1),
        narrow.with_fields(attention="math"),
        narrow,
    ]

    def try_all(session, folder, run, compare):
        for number, config in enumerate(tried):
            run(config, folder / str(number), "")
        return folder

    monkeypatch.setattr(session_module, "start_probing_worker", start)
    monkeypatch.setattr(session_module, "start_processes", lambda *given: nullcontext())
    monkeypatch.setattr(session_module, "process_context", lambda: None)
    monkeypatch.setattr(session_module, "find_fixes", try_all)
    run_session(AS_PUBLISHED, tmp_path, try_fixes=True, counts=[], progress=lambda *given: None)
    assert served == [1, 1, 2, 2, 3, 2]


def test_who_waits_is_told_the_cause_before_the_fixes():
    log = as_published_oom()
    assert first_answer(log.fatal_oom, detect(log)) == "out of memory in EVAL: eval-batch-logits"
    assert first_answer(log.fatal_oom, []) == "out of memory in EVAL"


def test_losses_that_nothing_compared_are_said_so(tmp_path):
    log, fixed = as_published_oom(), make_log(AS_PUBLISHED.with_fields(eval_batch_size=1))
    session = Session(AS_PUBLISHED, log, detect(log), AS_PUBLISHED)
    find_fixes(session, tmp_path, lambda config, path, title: fixed, compare=lambda name: lambda: None)
    (fix,) = session.fixes
    assert (fix.name, fix.agreement, fix.note) == ("eval-batch", None, NOT_COMPARED)


def planned(fixes, log):
    unknown = Prediction(True, 0, 0)
    plan = Plan("speed", 0, 0, unknown, Option(fixes, unknown, 1.0))
    return Session(AS_PUBLISHED, log, detect(log), AS_PUBLISHED, plan=plan)


def agreeing(name):
    agreement = AgreementRecord(name, "numerical", True, False, difference=1e-6, tolerance=1e-3)
    return lambda: agreement


class Runs:
    """Stands for re-runs, each of which ends as it is told."""

    def __init__(self, *logs):
        self.logs, self.titles, self.configs = list(logs), [], []

    def __call__(self, config, path, title):
        self.titles.append(path.name)
        self.configs.append(config)
        return self.logs.pop(0)


def test_a_plan_is_proved_by_one_run(tmp_path):
    session = planned(("eval-batch", "no-upcast"), as_published_oom())
    run = Runs(make_log(AS_PUBLISHED.with_fields(eval_batch_size=1, kbit_upcast=False)))
    last = find_fixes(session, tmp_path, run, compare=agreeing)
    assert run.titles == [last.name] == ["1_together.jsonl"]
    assert session.fixed_config == run.configs[0] == AS_PUBLISHED.with_fields(eval_batch_size=1, kbit_upcast=False)
    assert [(fix.name, fix.verified, fix.proved_with) for fix in session.fixes] == [
        ("eval-batch", True, ("no-upcast",)),
        ("no-upcast", True, ("eval-batch",)),
    ]
    written = (tmp_path / last.name).read_text()
    assert [record in written for record in ('"fix": "eval-batch"', '"fix": "no-upcast"')] == [True, True]


def test_where_the_whole_plan_does_not_hold_its_fixes_are_tried_one_by_one(tmp_path):
    """Here the losses of one of them differ: it is taken back, and the others are kept."""

    def differing(name):
        agreement = AgreementRecord(name, "numerical", name != "no-upcast", False, difference=0.5, tolerance=1e-3)
        return lambda: agreement

    session = planned(("eval-batch", "no-upcast"), as_published_oom())
    run = Runs(*(make_log(AS_PUBLISHED.with_fields(eval_batch_size=1)) for _ in range(3)))
    last = find_fixes(session, tmp_path, run, compare=differing)
    assert run.titles == ["1_together.jsonl", "2_eval-batch.jsonl", "3_no-upcast.jsonl"]
    assert last.name == "2_eval-batch.jsonl"
    assert [(fix.name, fix.verified, fix.proved_with) for fix in session.fixes] == [
        ("eval-batch", True, ()),
        ("no-upcast", False, ()),
    ]
    assert session.fixed_config == AS_PUBLISHED.with_fields(eval_batch_size=1)


def test_where_losses_are_computed_each_run_proves_fixes_of_one_class(tmp_path):
    log = as_published_oom()
    log.steps = [replace(step, loss=2.0) for step in log.steps]
    session = planned(("eval-batch", "no-upcast", "bucketed-batches"), log)
    fixed = make_log(AS_PUBLISHED.with_fields(eval_batch_size=1, kbit_upcast=False, batching="bucketed"))
    fixed.steps = [replace(step, loss=2.0) for step in fixed.steps]
    run = Runs(fixed, fixed)
    find_fixes(session, tmp_path, run, compare=agreeing)
    assert run.titles == ["1_together.jsonl", "2_bucketed-batches.jsonl"]
    assert [fix.equivalence for fix in session.fixes] == ["numerical", "numerical", "reordered"]
    assert all(fix.agreement.on_recipe for fix in session.fixes)


def test_a_folder_without_the_run_that_proves_a_plan_is_shown_without_it(tmp_path):
    session = planned(("eval-batch", "no-upcast"), as_published_oom())
    assert find_fixes(session, tmp_path, lambda config, path, title: None) == tmp_path / FIRST_LOG
    assert (session.fixes, session.with_fixes) == ([], None)


def test_a_folder_that_is_read_stays_as_it_is(tmp_path):
    """Also where its logs do not say how the losses compare: that is found out, and not written down."""
    folder = Path(shutil.copytree(MEASURED, tmp_path / "probe"))
    (fix,) = session_of_folder(folder).fixes
    assert fix.agreement.agrees
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in MEASURED.iterdir()
    }


def test_a_replayed_probe_says_how_other_numbers_of_samples_ended_and_what_time_it_took(tmp_path):
    folder = Path(shutil.copytree(MEASURED, tmp_path / "probe"))
    session = session_of_folder(folder)
    assert (session.counts, session.seconds) == ([], 0.0)
    session.counts, session.seconds = [OtherCount(600, 240, 480, Outcome.OOM)], 12.5
    write_outcome(session, folder)
    again = session_of_folder(folder)
    assert (again.counts, again.seconds) == (session.counts, session.seconds)
    (folder / OUTCOME_FILE).write_text("[1]")
    with pytest.raises(LogError, match="damaged, or of another release"):
        session_of_folder(folder)
