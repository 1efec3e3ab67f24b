"""Training on the model's own replies: what is kept of them, and the logits of a group."""

from dataclasses import replace
from functools import partial

import pytest

from memory_harness.configs.units import MIB
from memory_harness.harness.log.records import (
    DRAWING,
    BatchShape,
    EndRecord,
    OomRecord,
    Outcome,
    Phase,
    PhaseBegin,
    PhaseRecord,
    SurvivorRecord,
)
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.detectors import detect
from tests.builders import AS_PUBLISHED, FLOOR, LLAMA_8B, make_log

LEAN = AS_PUBLISHED.with_fields(kbit_upcast=False, batching="dynamic", eval_batch_size=1, loss="chunked")
PER_STEP = 2 * MIB
GROUP = BatchShape(8, 512, (), 0)
BUFFER = SurvivorRecord(9, Phase.GENERATE, "mine.py:7 rollout", "`buffer`: list of 9 (mine.py:9)", PER_STEP, 9)


def phase_like(record: PhaseRecord, phase: Phase, batch: BatchShape | None = None) -> PhaseRecord:
    return replace(record, phase=phase, step=record.step - 1, batch=batch, index=0)


def rollout_log(survivors=(BUFFER,), leak=PER_STEP, every=1) -> RunLog:
    """Return the log of a script that generates before its steps, whose floor rises by what is generated."""
    log = make_log(LEAN, lengths=(300,))
    run = replace(log.run, config={}, script="mine.py", total_steps=0, steps_per_epoch=0)
    phases = []
    for record in log.phases:
        if record.phase in (Phase.EVAL, Phase.CHECKPOINT):
            continue
        first = record.phase is Phase.FORWARD and record.micro_step == 0
        grown = leak * max(0, record.step)
        after = replace(record.after, allocated_bytes=record.after.allocated_bytes + grown)
        raised = replace(record, allocated_before_bytes=record.allocated_before_bytes + grown, after=after)
        if first and record.step % every == 0:
            phases.append(phase_like(raised, Phase.GENERATE, GROUP))
        phases.append(raised)
    steps = [replace(step, allocated_bytes=step.allocated_bytes + leak * step.step) for step in log.steps]
    return replace(log, run=run, phases=phases, steps=steps, survivors=list(survivors), evals=[])


def found(log):
    return {finding.cause: finding for finding in detect(log)}


def test_rollouts_that_a_buffer_keeps():
    finding = found(rollout_log())["rollouts-kept"]
    assert (finding.phase, finding.where) == (Phase.GENERATE, "mine.py:9")
    assert finding.bytes == pytest.approx(29 * PER_STEP, rel=0.1)


@pytest.mark.parametrize(
    "log",
    [
        partial(rollout_log, leak=0),
        partial(rollout_log, survivors=()),
        partial(rollout_log, survivors=(replace(BUFFER, phase=Phase.BACKWARD),)),
        partial(rollout_log, survivors=(replace(BUFFER, shape=(8, 8, 512, 128)),)),
        partial(rollout_log, every=12),
    ],
    ids=["flat", "nobody knows what", "made elsewhere", "keys and values", "generates now and then"],
)
def test_what_is_not_shown_to_be_rollouts_is_not_called_so(log):
    assert "rollouts-kept" not in found(log())


def group_oom(requested_bytes, *, generates=True, batch=GROUP, phase=Phase.FORWARD) -> RunLog:
    """Return the log of a script that dies at its third step, right after it has generated."""
    log = rollout_log(survivors=(), leak=0)
    end = next(i for i, record in enumerate(log.phases) if record.phase is Phase.FORWARD and record.step == 3)
    phases = log.phases[:end]
    if not generates:
        phases = [record for record in phases if record.phase is not Phase.GENERATE]
    budget = log.run.budget_bytes
    oom = OomRecord(phase, 3, 0, 1, requested_bytes, budget - MIB, budget - MIB, budget, MIB, 1, batch, "mine.py:12")
    begins, end_record = [PhaseBegin(phase, 3, 0, 1)], EndRecord(Outcome.OOM, 3, 1.0)
    return replace(log, phases=phases, steps=log.steps[:2], ooms=[oom], begins=begins, end=end_record)


@pytest.mark.parametrize("phase", [Phase.FORWARD, Phase.EVAL])
@pytest.mark.parametrize("length", [512, 511, 257], ids=["all tokens", "but the last", "the reply's alone"])
def test_logits_of_a_group_that_do_not_fit(length, phase):
    log = group_oom(8 * length * LLAMA_8B.vocab_size * 4, phase=phase)
    causes = found(log)
    assert causes["group-logits"].severity == "error"
    assert f"8 × {length} × 128256 × 4 B" in causes["group-logits"].explanation
    assert not {"logits-fp32-copies", "eval-batch-logits"} & set(causes)


@pytest.mark.parametrize(
    "log",
    [
        partial(group_oom, 8 * 512 * LLAMA_8B.vocab_size * 4, generates=False),
        partial(group_oom, 8 * 512 * LLAMA_8B.hidden_size * 4),
        partial(group_oom, 512 * LLAMA_8B.vocab_size * 4, batch=BatchShape(1, 512, (), 0)),
        partial(group_oom, 8 * 600 * LLAMA_8B.vocab_size * 4),
    ],
    ids=["nothing was generated", "hidden states", "a single reply", "longer than the batch"],
)
def test_other_requests_are_not_a_groups_logits(log):
    assert "group-logits" not in found(log())


def test_the_logits_of_a_single_reply_are_those_of_any_sequence():
    log = group_oom(512 * LLAMA_8B.vocab_size * 4, batch=BatchShape(1, 512, (), 0))
    assert found(log)["logits-fp32-copies"].severity == "error"


def test_the_floor_of_the_log_is_that_of_the_builder():
    assert rollout_log(leak=0).steps[-1].allocated_bytes == FLOOR


def acting_log(*, draws: bool, before_first: bool = True) -> RunLog:
    """Return the log of a script that calls its model without training it before each step, and keeps pictures."""
    log = rollout_log(survivors=(replace(BUFFER, phase=Phase.EVAL, shape=(4, 4, 32, 32)),))
    acting = [
        replace(record, phase=Phase.EVAL) if record.phase is Phase.GENERATE else record
        for record in log.phases
        if before_first or record.phase is not Phase.GENERATE or record.step > 0
    ]
    drawn = {DRAWING: "mine.py:7"} if draws else {}
    return replace(log, phases=acting, run=replace(log.run, settings_at=drawn))


@pytest.mark.parametrize(
    ("log", "is_told"),
    [
        (partial(acting_log, draws=True), True),
        (partial(acting_log, draws=False), False),
        (partial(acting_log, draws=True, before_first=False), False),
    ],
    ids=["a policy acts", "a model evaluates", "begins after training"],
)
def test_what_a_policy_did_that_a_buffer_keeps(log, is_told):
    assert ("rollouts-kept" in found(log())) is is_told
