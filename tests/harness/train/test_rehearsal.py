"""The rehearsal: every phase, what can fail first, at the steps where the whole run would get there."""

from __future__ import annotations

from pathlib import Path

import pytest

from memory_harness.configs.preset import load_preset
from memory_harness.configs.schema import RunConfig
from memory_harness.harness.data.batching import Example, packed_batch
from memory_harness.harness.data.prepare import prepare
from memory_harness.harness.log.records import Outcome, Phase, Record
from memory_harness.harness.log.runlog import RunLog, collect
from memory_harness.harness.train.execute import execute
from memory_harness.harness.train.rehearsal import SOAK_STEPS, longest_steps
from memory_harness.harness.train.run import Run, make_strategy, open_device

CONFIG = load_preset("smoke_cpu").with_fields(samples=16, max_new_tokens=2, tensors="fake", max_length=64)

PHASES = set(Phase) - {Phase.STEP, Phase.ROLLOUT, Phase.LOGPROBS}  # of loops that are not ours, and of GRPO


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> RunLog:
    return rehearsed(CONFIG, tmp_path_factory.mktemp("run"))


def rehearsed(config: RunConfig, output: Path) -> RunLog:
    """A rehearsal on the meta device."""
    records: list[Record] = []
    device = open_device(config)
    strategy = make_strategy(config, device)
    execute(Run(config, device, strategy, prepare(config)), records.append, output, rehearsal=True)
    return collect(records)


def test_it_meets_every_phase_of_a_run(log: RunLog) -> None:
    assert log.outcome is Outcome.COMPLETED
    assert set(log.peaks()) == PHASES


def test_it_meets_no_evaluation_where_there_is_none(tmp_path: Path) -> None:
    log = rehearsed(CONFIG.with_fields(do_eval=False, samples=4), tmp_path)
    assert log.outcome is Outcome.COMPLETED
    assert set(log.peaks()) == PHASES - {Phase.EVAL}


def test_it_evaluates_saves_and_resumes_at_the_end_of_the_first_epoch_and_goes_on(log: RunLog) -> None:
    boundary = [p for p in log.phases if p.step == log.run.steps_per_epoch]
    order = [p.phase for p in boundary if p.phase in (Phase.EVAL, Phase.CHECKPOINT, Phase.RESUME)]
    assert order[:3] == [Phase.EVAL, Phase.CHECKPOINT, Phase.RESUME]
    after = [s for s in log.steps if s.step > log.run.steps_per_epoch]
    assert len(after) == SOAK_STEPS


def test_its_longest_batches_come_before_the_evaluation(log: RunLog) -> None:
    first_eval = next(i for i, p in enumerate(log.phases) if p.phase is Phase.EVAL)
    tokens = [p.batch.padded_tokens if p.batch and p.phase is Phase.FORWARD else 0 for p in log.phases]
    assert max(tokens[:first_eval]) == max(tokens)


def test_prompts_that_evaluations_answer_are_answered_in_batches_of_theirs(tmp_path: Path) -> None:
    log = rehearsed(CONFIG.with_fields(eval_generate=3, eval_batch_size=2, eval_fraction=0.5), tmp_path)
    evals = [phase for phase in log.phases if phase.phase is Phase.EVAL]
    answered = [phase for phase in evals if phase.batch is None]
    assert [phase.index for phase in answered] == [1, 2] * 2
    assert all(phase.after.allocated_bytes <= phase.allocated_before_bytes for phase in answered[1:])


def test_packed_batches_of_many_samples_are_among_the_longest() -> None:
    rows = [((50,), 64), ((60, 60), 128), ((30,) * 4, 128), ((9,) * 3, 64), ((8,) * 8, 64)]
    steps = [[packed_batch([Example(number, 1) for number in lengths], length)] for lengths, length in rows]
    assert longest_steps(steps) == {1, 2, 4}
