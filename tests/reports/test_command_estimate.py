"""A line that says what a run takes: simulated once, and told from then on."""

from dataclasses import replace

import pytest

from memory_harness.configs.cli import parse_args
from memory_harness.probes.session.session import Session
from memory_harness.reports import command_estimate
from memory_harness.reports.command_estimate import estimate, keep_estimate_of
from tests.builders import AS_PUBLISHED, make_log

COMMAND = parse_args(["--estimate", "--model", "tiny-llama", "--samples", "24"])


def session_of(**run):
    log = make_log(AS_PUBLISHED.with_fields(eval_batch_size=1))
    return Session(COMMAND.config, replace(log, run=replace(log.run, **run)), [], COMMAND.config)


@pytest.fixture(autouse=True)
def asked(tmp_path, monkeypatch):
    """Return a list of what has been simulated; estimates go to a folder of the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    configs = []

    def run_session(config, folder, **_):
        configs.append(config)
        return session_of()

    monkeypatch.setattr(command_estimate, "run_session", run_session)
    return configs


def test_it_is_simulated_once_and_told_again(asked, capsys):
    assert estimate(COMMAND) == 0
    first = capsys.readouterr().out
    assert estimate(COMMAND) == 0
    assert capsys.readouterr().out == first
    assert first.count("\n") == 1
    assert "reserves at most" in first
    assert len(asked) == 1


def test_what_a_probe_has_found_is_told_without_another(asked):
    keep_estimate_of(session_of())
    assert estimate(COMMAND) == 0
    assert not asked


@pytest.mark.parametrize("run", [{"source": "cuda"}, {"fault": "retained-graph"}])
def test_what_was_measured_or_has_a_fault_is_not_kept(asked, run):
    keep_estimate_of(session_of(**run))
    estimate(COMMAND)
    assert len(asked) == 1
