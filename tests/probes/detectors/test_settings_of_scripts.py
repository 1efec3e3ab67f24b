"""Settings under a budget, of scripts that are watched: what the log of a pass that ran out of memory proves."""

from dataclasses import replace

import pytest

from memory_harness.configs.units import GIB, MIB
from memory_harness.harness.log.records import (
    OPTIMIZER_STATE,
    BatchShape,
    ForwardFacts,
    PeakRecord,
    Phase,
    ProbeRecord,
    SurvivorRecord,
)
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.detectors import detect
from tests.builders import AS_PUBLISHED, LLAMA_8B, Failure, make_log

LEAN = AS_PUBLISHED.with_fields(kbit_upcast=False, batching="dynamic", eval_batch_size=1, loss="chunked")
LAYERS = ForwardFacts(has_graph=True, cache_bytes=0, num_checkpointed_layers=32)


def found(log: RunLog) -> dict[str, object]:
    return {finding.cause: finding for finding in detect(log)}


def of_script(log: RunLog, **facts: object) -> RunLog:
    run = replace(log.run, config={}, script="mine.py", **{"model": LLAMA_8B, **facts})
    return replace(log, run=run)


def failed(phase: Phase, facts: ForwardFacts, rise: int = 6 * GIB) -> RunLog:
    """Return a script's log that dies in a phase whose pass was made so, after steps whose layers were checkpointed."""
    log = of_script(make_log(LEAN, failure=Failure(phase, 16, 2 * GIB, 13 * GIB, 14 * GIB)))
    phases = []
    for record in log.phases:
        is_forward = record.phase is Phase.FORWARD
        phases.append(replace(record, forward=LAYERS) if is_forward else record)
    like = next(record for record in reversed(phases) if record.phase is Phase.FORWARD)
    after = replace(like.after, peak_allocated_bytes=like.allocated_before_bytes + rise)
    phases.append(replace(like, phase=phase, step=16, forward=facts, after=after))
    return replace(log, phases=phases)


def test_an_evaluation_that_runs_out_of_memory_with_a_graph():
    facts = ForwardFacts(has_graph=True, cache_bytes=0, num_checkpointed_layers=32, where="mine.py:9")
    finding = found(failed(Phase.EVAL, facts))["eval-with-grad"]
    assert (finding.severity, finding.where) == ("error", "mine.py:9")


def test_an_evaluation_that_runs_out_of_memory_with_a_cache():
    facts = ForwardFacts(has_graph=False, cache_bytes=3 * GIB, num_checkpointed_layers=0, where="mine.py:9")
    finding = found(failed(Phase.EVAL, facts))["eval-use-cache"]
    assert (finding.severity, finding.where) == ("error", "mine.py:9")


def test_an_evaluation_without_either_is_neither():
    facts = ForwardFacts(has_graph=False, cache_bytes=0, num_checkpointed_layers=0, where="mine.py:9")
    assert not {"eval-with-grad", "eval-use-cache", "checkpointing-lost"} & found(failed(Phase.EVAL, facts)).keys()


@pytest.mark.parametrize("phase", [Phase.FORWARD, Phase.EVAL])
def test_the_first_pass_whose_layers_keep_their_activations(phase):
    facts = ForwardFacts(has_graph=True, cache_bytes=0, num_checkpointed_layers=0, switched_at="mine.py:5")
    causes = found(failed(phase, facts))
    assert (causes["checkpointing-lost"].severity, causes["checkpointing-lost"].where) == ("error", "mine.py:5")
    assert "eval-with-grad" not in causes


def test_a_pass_that_fails_before_its_layers_has_lost_nothing():
    facts = ForwardFacts(has_graph=True, cache_bytes=0, num_checkpointed_layers=0)
    assert "checkpointing-lost" not in found(failed(Phase.FORWARD, facts, rise=MIB))


def with_lengths(log: RunLog, lengths: tuple[int, ...]) -> RunLog:
    batch = BatchShape(len(lengths), 2048, lengths, sum(lengths))
    phases = [replace(record, batch=batch if record.batch else None) for record in log.phases]
    return replace(log, phases=phases, ooms=[replace(oom, batch=batch, batch_at="mine.py:3") for oom in log.ooms])


@pytest.mark.parametrize(("lengths", "is_told"), [((60, 80), True), ((60, 2048), False), ((1500, 1700), False)])
def test_padding_that_takes_the_room_of_a_failing_batch(lengths, is_told):
    log = of_script(make_log(LEAN, failure=Failure(Phase.FORWARD, 16, MIB, 13 * GIB, 14 * GIB)))
    finding = found(with_lengths(log, lengths)).get("padding-to-max")
    assert (finding is not None) is is_told
    if finding is not None:
        assert (finding.severity, finding.where) == ("error", "mine.py:3")


GIVEN = {"batch_sampler": "mine.py:5", "sorted": "mine.py:4"}


@pytest.mark.parametrize(
    ("lengths", "given", "where"),
    [
        ((96, 128, 160, 192), GIVEN, "mine.py:5"),
        ((96, 128, 160, 192), {"sorted": "mine.py:4"}, "mine.py:4"),
        ((96, 192, 128, 160), {"sorted": "mine.py:4"}, "mine.py:3"),
        ((96, 128, 160, 192), {}, "mine.py:3"),
    ],
)
def test_a_longest_batch_is_where_like_lengths_come_to_share_one(lengths, given, where):
    failure = Failure(Phase.FORWARD, 13, allocated_bytes=int(13.9 * GIB))
    log = make_log(LEAN, lengths=(*[200] * 24, 2048), failure=failure)
    phases = []
    for record in log.phases:
        length = lengths[min(record.step // 4, 3)]
        batch = BatchShape(2, length, (length, length), 2 * length)
        phases.append(replace(record, batch=batch) if record.batch else record)
    log = replace(log, phases=phases, ooms=[replace(oom, batch_at="mine.py:3") for oom in log.ooms])
    assert found(of_script(log, settings_at=given))["longest-sample"].where == where


HEAD = 128256 * 4096


@pytest.mark.parametrize(
    ("extra", "vocab_size", "is_told"), [(HEAD, 128256, True), (9000, 128256, False), (9000, 0, False)]
)
def test_a_head_that_a_script_trains_beside_its_adapter(extra, vocab_size, is_told):
    adapter = 3_407_872
    model = replace(
        LLAMA_8B,
        vocab_size=vocab_size,
        num_adapter_parameters=adapter,
        num_trainable_parameters=adapter + extra,
        trains_also_at="mine.py:12",
    )
    log = of_script(make_log(LEAN, failure=Failure(Phase.OPTIMIZER, 1, GIB, 13 * GIB, 14 * GIB)), model=model)
    finding = found(log).get("head-trainable")
    assert (finding is not None) is is_told
    if finding is not None:
        assert finding.where == "mine.py:12"


def growing(log: RunLog, survivor: SurvivorRecord, every: int) -> RunLog:
    """Return a script's log of plain steps, every so many of which leave 8 MiB."""
    held, floors = 0, {}
    phases = []
    for record in log.phases:
        if record.phase not in (Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER):
            continue
        left = 8 * MIB if record.phase is Phase.OPTIMIZER and record.step % every == 0 else 0
        after = replace(record.after, allocated_bytes=GIB + held + left)
        phases.append(replace(record, allocated_before_bytes=GIB + held, after=after))
        held += left
        floors[record.step] = GIB + held
    steps = [replace(step, allocated_bytes=floors[step.step]) for step in log.steps]
    log = replace(log, phases=phases, steps=steps, evals=[], survivors=[survivor])
    return of_script(log)


LIST = "global `kept` of __main__: list of 9"


@pytest.mark.parametrize(
    ("holder", "has_grad_fn", "cause"),
    [
        (f"{LIST} (mine.py:7)", False, "tensors-logged"),
        (f"{LIST} (mine.py:7)", True, "retained-graph"),
        (f"{LIST}, filled by a line of the hook tap() (mine.py:7)", False, "hook-holds-activations"),
        (f"{LIST}, ValueError, traceback, local `h` of forward() (mine.py:7)", True, "exception-holds-frames"),
        ("global `hooks_kept` of __main__: list of 9 (mine.py:7)", False, "tensors-logged"),
        (f"global `old` of __main__: list of 9, SGD, {OPTIMIZER_STATE} (mine.py:7)", False, "optimizer-states-twice"),
    ],
)
def test_what_is_kept_every_third_step_is_named_by_what_it_is(holder, has_grad_fn, cause):
    survivor = SurvivorRecord(12, Phase.FORWARD, "mine.py:5 step", holder, 8 * MIB // 3, 4, has_grad_fn)
    (finding,) = [finding for finding in detect(growing(make_log(LEAN), survivor, 3)) if finding.severity == "error"]
    assert (finding.cause, finding.where) == (cause, "mine.py:7")


STATES = f"{OPTIMIZER_STATE}: dict with key Parameter, dict with key 'exp_avg' (mine.py:7)"


@pytest.mark.parametrize(
    ("holder", "cause"),
    [(STATES, "optimizer-states-twice"), (f"{OPTIMIZER_STATE}: dict with key 'old_dirs', list of 9 (mine.py:7)", None)],
    ids=["of parameters that have been replaced", "a history of bounded length"],
)
def test_an_optimizers_states_that_grow_to_the_end_are_told(holder, cause):
    survivor = SurvivorRecord(12, Phase.FORWARD, "mine.py:5 step", holder, 8 * MIB, 4)
    errors = [finding.cause for finding in detect(growing(make_log(LEAN), survivor, 1)) if finding.severity == "error"]
    assert errors == ([] if cause is None else [cause])


def test_a_buffer_that_grows_is_told_with_what_is_computed_from_it():
    scores = "replaced by larger ones: global `scores` of __main__ (mine.py:9)"
    bank = "replaced by larger ones: attribute `seen` of Bank (mine.py:7)"
    log = growing(make_log(LEAN), SurvivorRecord(12, Phase.FORWARD, "mine.py:7 forward", bank, 6 * MIB, 1), 1)
    log.survivors.append(SurvivorRecord(12, Phase.FORWARD, "mine.py:8 forward", scores, 3 * MIB, 1, True))
    (finding,) = [finding for finding in detect(log) if finding.severity == "error"]
    assert (finding.cause, finding.where) == ("tensors-logged", "mine.py:7")


def test_a_queue_that_falls_at_the_start_alone_has_no_epochs():
    survivor = SurvivorRecord(12, Phase.FORWARD, "mine.py:5 step", f"{LIST} (mine.py:7)", 8 * MIB, 4)
    log = growing(make_log(LEAN), survivor, 1)
    floors, level = [], GIB
    for step in log.steps:
        level = GIB if step.step in (7, 9) else level + 8 * MIB
        floors.append(level)
    before = [GIB, *floors]
    counted = zip(log.steps, floors, before, strict=False)
    log.steps[:] = [replace(step, epoch=1, allocated_bytes=to, left_bytes=to - at) for step, to, at in counted]
    stats = replace(log.phases[-1].after, peak_allocated_bytes=100 * MIB)
    log = replace(log, phases=[replace(record, after=stats) for record in log.phases])
    assert "epoch-hoard" not in found(log)


@pytest.mark.parametrize("share", [0.2, 0.4])
def test_a_list_that_falls_again_and_again_is_an_epochs_where_it_matters(share):
    survivor = SurvivorRecord(12, Phase.FORWARD, "mine.py:5 step", f"{LIST} (mine.py:7)", MIB, 4)
    log = growing(make_log(LEAN), survivor, 1)
    floors = [GIB + (step.step % 6) * 8 * MIB for step in log.steps]
    left = [8 * MIB if step.step % 6 else -40 * MIB for step in log.steps]
    counted = zip(log.steps, floors, left, strict=True)
    log.steps[:] = [replace(step, epoch=1, allocated_bytes=floor, left_bytes=more) for step, floor, more in counted]
    stats = replace(log.phases[-1].after, peak_allocated_bytes=round(40 * MIB / share))
    log = replace(log, phases=[replace(record, after=stats) for record in log.phases])
    assert ("epoch-hoard" in found(log)) is (share > 0.25)


def test_what_the_collector_frees_on_its_own_again_and_again_lies_in_circles():
    survivor = SurvivorRecord(12, Phase.FORWARD, "mine.py:5 step", f"graph of {LIST} (mine.py:7)", 2 * MIB, 4, True)
    log = growing(make_log(LEAN), survivor, 2)
    runs = [ProbeRecord("collector", step, GIB + 60 * MIB, GIB, 2 * GIB, 2 * GIB) for step in (8, 14, 20)]
    circle = SurvivorRecord(
        14, Phase.STEP, "", "a circle, closed by attribute `twin` (mine.py:3)", MIB, 1, unit="cycle"
    )
    log = replace(log, probes=runs, survivors=[survivor, circle])
    assert found(log)["reference-cycle"].where == "mine.py:3"
    assert "reference-cycle" not in found(replace(log, probes=runs[:1]))


@pytest.mark.parametrize("kept_bytes", [3 * GIB, GIB // 4])
def test_what_an_evaluation_has_left_is_told_where_the_next_step_would_fit_without_it(kept_bytes):
    holder = "attribute `distances` of Retrieval (mine.py:7)"
    left = SurvivorRecord(16, Phase.EVAL, "mine.py:7 evaluate", holder, kept_bytes, 1, unit=Phase.EVAL)
    log = failed(Phase.FORWARD, LAYERS)
    before = log.phases[-1].allocated_before_bytes
    after = replace(log.phases[-1].after, allocated_bytes=before)
    evaluation = replace(log.phases[-1], phase=Phase.EVAL, step=15, after=after)
    evaluation = replace(evaluation, allocated_before_bytes=before - kept_bytes, forward=None)
    phases = [record for record in log.phases if record.phase is not Phase.EVAL]
    log = replace(log, phases=[*phases[:-1], evaluation, phases[-1]], survivors=[left], evals=[])
    finding = found(log).get("eval-leftover")
    assert (finding is not None) is (kept_bytes == 3 * GIB)
    if finding is not None:
        assert (finding.severity, finding.where) == ("error", "mine.py:7")


@pytest.mark.parametrize(("made_bytes", "where"), [(3 * GIB, "mine.py:4"), (MIB, "model.py:1")])
def test_logits_of_a_failing_backward_pass_have_the_line_that_made_them(made_bytes, where):
    logits = 2 * 2048 * LLAMA_8B.vocab_size * 4
    log = of_script(make_log(LEAN, failure=Failure(Phase.BACKWARD, 16, logits, 13 * GIB, 14 * GIB)))
    stacks = {
        "weights;head.weight": 9 * GIB,
        "activations;mine.py:8 <module>;mine.py:4 loss;torch/f.py:2 to": made_bytes,
    }
    peak = PeakRecord(Phase.FORWARD, 1, 12 * GIB, 13 * GIB, {}, {}, stacks)
    batch = BatchShape(2, 2048, (2048, 2048), 4096)
    ooms = [replace(oom, batch=batch, where="model.py:1") for oom in log.ooms]
    finding = found(replace(log, ooms=ooms, peaks_seen=[peak]))["logits-fp32-copies"]
    assert finding.where == where
