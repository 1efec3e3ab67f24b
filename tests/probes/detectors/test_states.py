"""Weights, gradients and optimizer states that do not fit together: where the run dies, and what looks alike."""

from dataclasses import replace

import pytest

from memory_harness.configs.units import GIB
from memory_harness.harness.log.records import MODEL_STATES, Phase, SurvivorRecord
from memory_harness.probes.detectors import detect
from memory_harness.probes.fixes import propose
from tests.builders import AS_PUBLISHED, LLAMA_8B, Failure, make_log

CAUSE = "model-states-exceed-budget"
FULL = AS_PUBLISHED.with_fields(
    quantization="none", finetuning_type="full", kbit_upcast=False, dtype="bfloat16", optimizer="adamw_torch"
)
WEIGHTS = 8_000_000_000
MODEL = replace(
    LLAMA_8B, num_parameters=WEIGHTS, num_trainable_parameters=WEIGHTS, num_adapter_parameters=0,
    num_quantised_parameters=0,
)  # fmt: skip


def dies_in(phase, config=FULL, budget=40 * GIB, step=1, loaded=2 * WEIGHTS, model=MODEL):
    """Return the log of a run that dies there, with so many bytes loaded."""
    log = make_log(config, failure=Failure(phase, step, 64 * 2**20, budget - GIB), budget_bytes=budget)
    phases = []
    for record in log.phases:
        after = record.after
        if record.phase is Phase.LOAD:
            after = replace(after, allocated_bytes=loaded, peak_allocated_bytes=loaded)
        phases.append(replace(record, after=after))
    return replace(log, run=replace(log.run, model=model), phases=phases)


def found(log):
    return [finding for finding in detect(log) if finding.cause == CAUSE]


@pytest.mark.parametrize("phase", [Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER])
def test_a_run_that_cannot_hold_its_states_dies_of_them_wherever_it_gets(phase):
    (finding,) = found(dies_in(phase))
    assert (finding.severity, finding.phase) == ("error", phase)
    evidence = finding.evidence
    assert evidence["weights_bytes"] == 2 * WEIGHTS
    assert evidence["gradients_bytes"] == 2 * WEIGHTS
    assert evidence["optimizer_states_bytes"] == 4 * WEIGHTS, "two values, as wide as the weights"
    assert f"gradients ({WEIGHTS} × 2 B)" in finding.explanation
    assert f"adamw_torch's states ({WEIGHTS} × 4 B)" in finding.explanation


def test_a_run_that_dies_while_loading_is_counted_by_its_parameters():
    (finding,) = found(dies_in(Phase.LOAD, step=0))
    assert finding.evidence["weights_bytes"] == 2 * WEIGHTS


@pytest.mark.parametrize(
    ("optimizer", "num_bytes"),
    [("adamw_torch", 4), ("adamw_bnb_8bit", 2), ("paged_adamw_8bit", 0), ("adafactor", 0), ("lion_32bit", 4)],
)
def test_states_are_as_large_as_the_optimizer_keeps_them_on_the_card(optimizer, num_bytes):
    (finding,) = found(dies_in(Phase.BACKWARD, FULL.with_fields(optimizer=optimizer), budget=25 * GIB))
    assert finding.evidence["optimizer_states_bytes"] == num_bytes * WEIGHTS


def test_float32_weights_have_float32_gradients_and_states():
    (finding,) = found(dies_in(Phase.BACKWARD, FULL.with_fields(weights_dtype="float32"), loaded=4 * WEIGHTS))
    assert finding.evidence["total_bytes"] == 16 * WEIGHTS


ADAPTER = replace(MODEL, num_trainable_parameters=4_000_000, num_adapter_parameters=4_000_000)


@pytest.mark.parametrize(
    "log",
    [
        make_log(FULL),
        dies_in(Phase.BACKWARD, budget=80 * GIB),
        dies_in(Phase.FORWARD, FULL.with_fields(finetuning_type="lora"), budget=16 * GIB, model=ADAPTER),
        dies_in(Phase.EVAL, budget=80 * GIB),
        dies_in(Phase.BACKWARD, AS_PUBLISHED, budget=14 * GIB, loaded=6 * GIB, model=LLAMA_8B),
        dies_in(Phase.BACKWARD, step=3),
    ],
    ids=["it fits", "the activations", "an adapter", "its evaluation", "weights in 4 bits", "after an update"],
)
def test_other_runs_do_not_die_of_their_states(log):
    assert not found(log)


@pytest.mark.parametrize(("states", "causes"), [(12 * GIB, []), (30 * GIB, [CAUSE])])
def test_what_a_scripts_optimizer_was_to_have_counts_once_however_often_memory_ran_out(states, causes):
    log = dies_in(Phase.FORWARD)
    told = SurvivorRecord(1, Phase.FORWARD, "", "AdamW (mine.py:3)", states, 9, unit=MODEL_STATES)
    log = replace(log, run=replace(log.run, script="mine.py", config={}), survivors=[told] * 3, steps=[])
    assert [finding.cause for finding in detect(log) if finding.cause == CAUSE] == causes


def test_fixes_that_make_them_smaller_are_proposed():
    proposed = [fix.name for fix in propose(found(dies_in(Phase.BACKWARD)), FULL.with_fields(max_length=1024))]
    assert proposed == ["optimizer-8bit", "paged-optimizer", "adafactor", "train-adapter"]
