"""A training run that goes out of memory for good goes on with the next fix."""

from dataclasses import replace

import pytest

from memory_harness.harness.log.records import EndRecord, Outcome, Phase
from memory_harness.probes.session import train as training
from memory_harness.probes.session.gate import Gate
from memory_harness.probes.session.train import remedy, train_in_worker
from tests.builders import AS_PUBLISHED, Failure, make_log

CONFIG = AS_PUBLISHED.with_fields(eval_batch_size=1)


def out_of_memory(config):
    return make_log(config, failure=Failure(Phase.FORWARD, 5))


@pytest.fixture
def attempts(monkeypatch, tmp_path):
    """What each process was asked for; the first `len(ends)` end as told, with a checkpoint."""
    (tmp_path / "checkpoint-4").mkdir()
    asked, ends = [], []

    def train_once(gate, run, watch, resume, allow_changes):
        asked.append((gate, resume, allow_changes))
        return ends.pop(0)

    monkeypatch.setattr(training, "_train_once", train_once)
    return asked, ends, tmp_path


def test_it_goes_on_from_the_checkpoint_with_a_fix_in_place(attempts):
    asked, ends, run = attempts
    done = make_log(CONFIG)
    ends += [out_of_memory(CONFIG), done]
    said = []
    assert train_in_worker(Gate(CONFIG, "passed"), run, lambda: None, said.append) is done
    (first, *_), (second, resume, allow_changes) = asked
    fix = remedy(out_of_memory(CONFIG), CONFIG)
    assert first.config == CONFIG
    assert second.config == fix.apply(CONFIG)
    assert (resume, allow_changes) == (run, True)
    assert fix.name in second.reason
    assert "checkpoint-4" in said[0]


def test_it_ends_where_no_fix_is_left_or_nothing_was_saved(attempts, monkeypatch):
    asked, ends, run = attempts
    ends += [out_of_memory(CONFIG)] * 40
    log = train_in_worker(Gate(CONFIG, "passed"), run, lambda: None, lambda line: None)
    assert log.outcome is Outcome.OOM
    configs = [gate.config for gate, *_ in asked]
    assert 1 < len(configs) == len(set(configs)) < 20
    (run / "checkpoint-4").rmdir()
    before = len(asked)
    train_in_worker(Gate(CONFIG, "passed"), run, lambda: None, lambda line: None)
    assert len(asked) == before + 1


def test_a_remedy_leaves_data_and_optimizer_alone():
    config, fixes = CONFIG, []
    while fix := remedy(out_of_memory(CONFIG), config):
        fixes.append(fix.name)
        config = fix.apply(config)
    assert fixes
    assert config.data == CONFIG.data
    assert config.train.optimizer == CONFIG.train.optimizer


def test_what_ended_otherwise_is_left_as_it_is(attempts):
    asked, ends, run = attempts
    ends.append(replace(make_log(CONFIG), end=EndRecord(Outcome.ERROR, 3, 1.0)))
    train_in_worker(Gate(CONFIG, "passed"), run, lambda: None, lambda line: None)
    assert len(asked) == 1
