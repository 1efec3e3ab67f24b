"""Offsets of loops that are not ours: buckets beside gradients, experts that stay wide, states that are there twice."""

from dataclasses import replace

import pytest

from memory_harness.configs.units import GIB, MIB
from memory_harness.harness.log.records import Phase, PhaseRecord
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.detectors import detect
from tests.builders import AS_PUBLISHED, LLAMA_8B, make_log

LEAN = AS_PUBLISHED.with_fields(kbit_upcast=False, batching="dynamic", eval_batch_size=1, loss="chunked")
STATES, GRADIENTS = 52 * MIB, 26 * MIB


def found(log):
    return {finding.cause: finding for finding in detect(log)}


def script_log(**facts) -> RunLog:
    log = make_log(LEAN)
    return replace(log, run=replace(log.run, config={}, script="mine.py", model=replace(LLAMA_8B, **facts)))


def test_buckets_that_take_a_good_part_are_told():
    finding = found(script_log(gradient_bucket_bytes=4 * GIB))["communication-buffers"]
    assert (finding.severity, finding.bytes) == ("info", 4 * GIB)


@pytest.mark.parametrize("num_bytes", [0, 26 * MIB], ids=["views", "an adapter's"])
def test_small_buckets_are_no_finding(num_bytes):
    assert "communication-buffers" not in found(script_log(gradient_bucket_bytes=num_bytes))


WIDE = {"num_parameters": 30 * 10**9, "num_quantised_parameters": 10**9, "num_expert_parameters": 28 * 10**9}


@pytest.mark.parametrize(("size", "bits"), [(2, 16), (4, 32)])
def test_experts_of_a_script_are_told_by_their_weights(size, bits):
    finding = found(script_log(**WIDE, expert_bytes=size * 28 * 10**9))["experts-not-quantised"]
    assert f"which stay in {bits} bits" in finding.title


def test_experts_of_a_model_that_is_not_in_4_bits_are_as_they_should_be():
    assert "experts-not-quantised" not in found(script_log(**WIDE))


def states_log(again=(17,), *, more_gradients=0, keeps=True) -> RunLog:
    """Return a log whose optimizer makes its states at the first step and at those of `again`."""
    log = make_log(LEAN)
    held = 0
    phases: list[PhaseRecord] = []
    floors: dict[int, int] = {}
    for record in log.phases:
        if record.phase not in (Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER):
            continue
        before, left = GIB + held, 0
        gradients = GRADIENTS + (more_gradients if record.step >= min(again, default=99) else 0)
        if record.phase is Phase.BACKWARD:
            left = gradients
        elif record.phase is Phase.OPTIMIZER:
            before, left = before + gradients, -gradients
            if record.step == 1 or record.step in again:
                left += STATES
                held += STATES
            if not keeps and record.step + 1 in again:  # the old optimizer goes before the new one steps
                left -= STATES
                held -= STATES
            floors[record.step] = GIB + held
        after = replace(record.after, allocated_bytes=before + left)
        phases.append(replace(record, allocated_before_bytes=before, after=after))
    steps = [replace(step, allocated_bytes=floors[step.step]) for step in log.steps]
    return replace(log, phases=phases, steps=steps, evals=[])


def test_states_that_are_made_again_and_stay():
    finding = found(states_log())["optimizer-states-twice"]
    assert (finding.bytes, finding.steps) == (STATES, (17, 17))


@pytest.mark.parametrize(
    "log",
    [
        states_log(again=()),
        states_log(keeps=False),
        states_log(more_gradients=GRADIENTS),
        states_log(again=(32,)),
    ],
    ids=["once", "the old ones go", "more layers train from then on", "at the last step"],
)
def test_states_that_are_there_once_are_no_finding(log):
    assert "optimizer-states-twice" not in found(log)
