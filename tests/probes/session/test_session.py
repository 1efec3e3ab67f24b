"""Fixes that a probe tries, and what it says of each."""

import shutil
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from memory_harness.harness.log.errors import LogError
from memory_harness.harness.log.records import Outcome
from memory_harness.probes.detectors import detect
from memory_harness.probes.findings import OtherCount
from memory_harness.probes.plan.verify import NOT_COMPARED
from memory_harness.probes.session import session as session_module
from memory_harness.probes.session.session import (
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
    def start(config):
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
