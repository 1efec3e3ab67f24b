"""Out of memory in training: nothing is lost, nothing is half done, and everything is written down."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from memory_harness.harness.log.errors import DeviceOutOfMemory
from memory_harness.harness.log.records import OomRecord, Outcome, Phase, PhaseBegin
from memory_harness.harness.simulate.allocator import AllocatorOutOfMemory
from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.harness.train import recovery
from memory_harness.harness.train.run import Run, open_device
from memory_harness.harness.train.run_folder import Hooks, train_run
from tests.harness.train.training_runs import CONFIG, are_equal, prepared, train

PHASES = (Phase.DATA, Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER, Phase.EVAL, Phase.GENERATE)
"""those that are done again; LOAD, RESUME and CHECKPOINT have tests of their own"""

REORDERED = 1e-5
"""Relative difference of a loss whose micro-batches were cut: float32 sums in another order."""

NO_DROPOUT = CONFIG.with_fields(lora_dropout=0.0)


class Failing:
    """Makes allocations fail: the n-th of a part of a step, or those of a phase in a step as often as asked for."""

    def __init__(self, at=None, phase=None, step=None, times=1):
        self.at = dict(at or {})
        self.phase, self.step, self.times = phase, step, times
        self.counts = Counter()
        self.failed = 0
        self._now = (None, 0)

    def on_record(self, record):
        if isinstance(record, PhaseBegin):
            self._now = (record.phase, record.step)

    def watch(self, device):
        allocator = device.memory.simulated.allocator
        malloc = allocator.malloc

        def failing(num_bytes, stream=0):
            self.counts[self._part()] += 1
            if self._hits():
                self.failed += 1
                raise AllocatorOutOfMemory(num_bytes, 0, 0, 0)
            return malloc(num_bytes, stream)

        allocator.malloc = failing

    def _part(self):
        """Return the step and what of it is tried again by itself."""
        phase, step = self._now
        return step, phase if phase in (Phase.EVAL, Phase.GENERATE) else Phase.STEP

    def _hits(self):
        by_phase = self._now == (self.phase, self.step) and self.failed < self.times
        return by_phase or self.counts[self._part()] == self.at.get(self._part())

    def train(self, run, config=CONFIG, **options):
        return train(run, config, also=self.on_record, prepare_device=self.watch, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nothing disturbs, and how often it allocates."""
    counting = Failing()
    return counting.train(tmp_path_factory.mktemp("whole")), counting.counts


@pytest.fixture
def guarded(monkeypatch):
    """Injected failures come although there is room, so every optimizer step has to expect one."""
    monkeypatch.setattr(recovery, "GUARD_FACTOR", 10**9)


@pytest.mark.parametrize(
    "phase", [*PHASES[1:5:2], *(pytest.param(phase, marks=pytest.mark.slow) for phase in (*PHASES[::2], PHASES[5]))]
)
def test_a_failure_in_any_phase_changes_nothing(phase, whole, guarded, tmp_path):
    failing = Failing(phase=phase, step=7 if phase is Phase.GENERATE else 4)
    run = failing.train(tmp_path)
    assert failing.failed == 1
    assert run.outcome is Outcome.COMPLETED
    assert run.losses == whole[0].losses
    assert run.replies == whole[0].replies
    assert are_equal(run.states, whole[0].states)
    assert [(oom.phase, oom.step) for oom in run.log.ooms] == [(phase, failing.step)]
    assert [record.action for record in run.log.recoveries] == ["clear-cache"]
    assert run.log.fatal_oom is None


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (3, 4))])
def test_failures_at_random_allocations_change_nothing(seed, whole, guarded, tmp_path):
    """Twelve a run: one in each of seven steps, of four evaluations, and of the replies."""
    undisturbed, counts = whole
    chance = random.Random(seed)
    failing = Failing({part: chance.randint(1, count) for part, count in sorted(counts.items()) if part[0]})
    run = failing.train(tmp_path)
    assert failing.failed == len(run.log.ooms) == 12
    assert {record.action for record in run.log.recoveries} == {"clear-cache"}
    assert run.outcome is Outcome.COMPLETED
    assert run.losses == undisturbed.losses
    assert run.replies == undisturbed.replies
    assert are_equal(run.states, undisturbed.states)


def test_a_failure_to_load_is_an_outcome(tmp_path):
    run = Failing(phase=Phase.LOAD, step=0)
    device = open_device(CONFIG)
    run.watch(device)
    strategy, records = QLoraStrategy(CONFIG, device), []

    def also(record):
        run.on_record(record)
        records.append(record)

    opened, hooks = Run(CONFIG, device, strategy, prepared(CONFIG)), Hooks(also, str, lambda *_: True)
    assert train_run(tmp_path, opened, hooks, resume=None, gate_reason="") is Outcome.OOM
    assert [record.phase for record in records if isinstance(record, OomRecord)] == [Phase.LOAD]


@pytest.mark.slow
def test_a_failure_to_save_costs_a_checkpoint(whole, tmp_path, monkeypatch):
    save, failures = QLoraStrategy.save, [DeviceOutOfMemory(2**20, 0, 0)]

    def fail(strategy, folder):
        if "checkpoint-4" in folder.name and failures:
            raise failures.pop()
        save(strategy, folder)

    monkeypatch.setattr(QLoraStrategy, "save", fail)
    run = train(tmp_path)
    assert run.outcome is Outcome.COMPLETED
    assert run.losses == whole[0].losses
    assert are_equal(run.states, whole[0].states)
    assert [(oom.phase, oom.step) for oom in run.log.ooms] == [(Phase.CHECKPOINT, 4)]
    assert [record.action for record in run.log.recoveries] == ["skip-checkpoint"]
    assert not list(tmp_path.glob(".checkpoint*"))


def test_a_step_that_does_not_fit_is_done_in_smaller_micro_batches(tmp_path):
    expected = train(tmp_path / "whole", NO_DROPOUT)
    failing = Failing(phase=Phase.BACKWARD, step=4, times=2)
    run = failing.train(tmp_path / "run", NO_DROPOUT)
    assert [record.action for record in run.log.recoveries] == ["clear-cache", "split-micro-batch"]
    assert [step.micro_steps for step in run.log.steps] == [1, 1, 1, 2, 2, 2, 1]  # the last is one sequence
    assert [step.lengths for step in run.log.steps] == [step.lengths for step in expected.log.steps]
    assert [loss for _, loss in run.losses] == pytest.approx([loss for _, loss in expected.losses], rel=REORDERED)


def test_an_evaluation_that_does_not_fit_never_shrinks_the_training_batch(tmp_path):
    config = NO_DROPOUT.with_fields(
        samples=24, eval_fraction=0.3, eval_batch_size=6, max_length=128, max_steps=2, generate_prompts=0
    )
    ample = train(tmp_path / "ample", config)
    peaks = {phase: stats.peak_reserved_bytes for phase, stats in ample.log.peaks().items()}
    budget = (peaks[Phase.BACKWARD] + peaks[Phase.EVAL]) // 2
    assert peaks[Phase.BACKWARD] < budget
    run = train(tmp_path / "tight", config.with_fields(budget_bytes=budget))
    assert run.outcome is Outcome.COMPLETED
    assert {oom.phase for oom in run.log.ooms} == {Phase.EVAL}
    assert "split-batch" in {record.action for record in run.log.recoveries}
    assert all(step.micro_steps == 1 for step in run.log.steps)
    assert run.log.peak_reserved_bytes <= budget
    assert [loss for _, loss in run.losses] == pytest.approx([loss for _, loss in ample.losses], rel=REORDERED)


def test_one_sequence_that_does_not_fit_stops_at_the_step_before(whole, tmp_path):
    failing = Failing(phase=Phase.FORWARD, step=5, times=10)
    run = failing.train(tmp_path)
    assert run.outcome is Outcome.OOM
    assert run.log.recoveries[-1].action == "stop"
    assert run.log.recoveries[-1].detail == "checkpoint-4"
    again = train(tmp_path, resume=tmp_path)
    assert again.outcome is Outcome.COMPLETED
    assert again.losses[:4] == whole[0].losses[:4]
    assert_still_told(run, again)


def test_an_unexpected_failure_in_the_update_stops_at_the_last_checkpoint(whole, tmp_path):
    run = Failing(phase=Phase.OPTIMIZER, step=5).train(tmp_path)
    assert run.outcome is Outcome.OOM
    assert (run.log.recoveries[-1].action, run.log.recoveries[-1].detail) == ("stop", "checkpoint-4")
    again = train(tmp_path, resume=tmp_path)
    assert again.losses == whole[0].losses
    assert are_equal(again.states, whole[0].states)
    assert_still_told(run, again)


def assert_still_told(run, again):
    """What ended the first process is in the log of the run that went on."""
    assert run.log.fatal_oom is not None
    assert again.log.ooms == run.log.ooms
    assert again.log.recoveries == run.log.recoveries
    assert again.log.fatal_oom is None


@pytest.mark.slow
@pytest.mark.parametrize("phase", [Phase.LOAD, Phase.RESUME])
def test_a_failure_before_the_first_step_of_a_resumed_run_ends_that_process_alone(phase, whole, tmp_path):
    Failing(phase=Phase.OPTIMIZER, step=5).train(tmp_path)
    checkpoint = (tmp_path / "checkpoint-4" / "manifest.json").read_bytes()
    failed = Failing(phase=phase, step=4).train(tmp_path, resume=tmp_path)
    assert failed.outcome is failed.log.outcome is Outcome.OOM
    assert failed.log.fatal_oom.phase is phase
    assert (tmp_path / "checkpoint-4" / "manifest.json").read_bytes() == checkpoint
    again = train(tmp_path, resume=tmp_path)
    assert again.losses == whole[0].losses
    assert are_equal(again.states, whole[0].states)
    assert [oom.phase for oom in again.log.ooms] == [Phase.OPTIMIZER, phase]


def test_what_was_pending_is_not_done_again_where_the_first_step_fails(tmp_path):
    asked = []

    def ask(record):
        if isinstance(record, PhaseBegin) and (record.phase, record.step) == (Phase.EVAL, 4):
            asked.append("SIGTERM")

    train(tmp_path, also=ask, stop=lambda: asked[-1] if asked else "")
    Failing(phase=Phase.FORWARD, step=5, times=10).train(tmp_path, resume=tmp_path)
    again = train(tmp_path, resume=tmp_path)
    assert [record.step for record in again.log.evals] == [2, 4, 6, 7]


def test_what_was_learnt_of_the_limits_outlives_a_stop(tmp_path):
    failing, asked = Failing(phase=Phase.BACKWARD, step=2, times=2), []

    def watch(record):
        failing.on_record(record)
        if record.kind == "step" and record.step == 3:
            asked.append("SIGTERM")

    train(tmp_path, NO_DROPOUT, also=watch, prepare_device=failing.watch, stop=lambda: asked[-1] if asked else "")
    run = train(tmp_path, NO_DROPOUT, resume=tmp_path)
    assert [step.micro_steps for step in run.log.steps] == [1, 2, 2, 2, 2, 2, 1]


def test_a_prompt_that_never_fits_is_left_out_and_written_down(tmp_path):
    run = Failing(phase=Phase.GENERATE, step=7, times=5).train(tmp_path)
    assert run.outcome is Outcome.COMPLETED
    assert len(run.replies) == 1
    assert [record.action for record in run.log.recoveries].count("skip-batch") == 1


def test_repeated_retries_clear_the_cache_between_steps(tmp_path, monkeypatch):
    def retrying(device):
        stats, calls = device.stats, iter(range(10**9))
        monkeypatch.setattr(device, "stats", lambda: replace(stats(), num_alloc_retries=next(calls)))

    run = train(tmp_path, prepare_device=retrying)
    notes = [record for record in run.log.recoveries if record.action == "clear-cache"]
    assert len(notes) == 7
    assert "allocator retries" in notes[0].detail
