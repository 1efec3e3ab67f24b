"""Remedies for fragmentation and orders of length, each tried by replay."""

import pytest

from memory_harness.configs.cli import parse_args
from memory_harness.configs.units import GIB, MIB
from memory_harness.harness.data.batching import train_steps, unshuffled
from memory_harness.harness.data.prepare import prepare
from memory_harness.harness.log.errors import HarnessError
from memory_harness.harness.log.records import Outcome, Phase
from memory_harness.harness.log.runlog import collect
from memory_harness.harness.train.execute import execute
from memory_harness.harness.train.run import open_run
from memory_harness.probes.plan.replay_fixes import length_orders, main, record, remedies, trial_of
from tests.builders import Failure, make_log, with_oom

OF_VARYING_LENGTH = ("--batching", "dynamic", "--dtype", "float16", "--generate-prompts", "0", "--epochs", "1")
TINY = ["--preset", "smoke_cpu", "--tensors", "fake", "--pad-to-multiple-of", "1", *OF_VARYING_LENGTH]
LARGE_ENOUGH_TO_FRAGMENT = [
    *("--model", "llama-3.2-1b", "--max-length", "512", "--samples", "14", "--eval-batch-size", "1"),
    *("--pad-to-multiple-of", "8", *OF_VARYING_LENGTH),
]


@pytest.fixture(scope="module")
def replayer():
    return record(parse_args(LARGE_ENOUGH_TO_FRAGMENT).config)


@pytest.mark.slow
def test_each_remedy_is_tried_on_the_run(replayer):
    trials = {trial.name: trial for trial in remedies(replayer)}
    configured = trials["as configured"]
    assert list(trials) == [
        "as configured",
        "expandable-segments",
        "clear-before-eval",
        "clear-cache",
        "bucketed-batches",
    ]
    assert {trial.outcome for trial in trials.values()} == {Outcome.COMPLETED}
    assert trials["expandable-segments"].unused_bytes < configured.unused_bytes / 2
    assert trials["clear-cache"].peak_allocated_bytes == configured.peak_allocated_bytes


def test_a_replay_is_what_the_run_itself_would_be(tmp_path):
    config = parse_args([*TINY, "--expandable-segments"]).config
    records = []
    execute(open_run(config, prepare(config)), records.append, tmp_path)
    replayed = record(parse_args(TINY).config).run(config)
    assert trial_of("run", collect(records)) == trial_of("run", replayed)


@pytest.mark.slow
def test_orders_of_length_are_tried_on_the_same_samples(replayer):
    shuffled, rising, falling = length_orders(replayer)
    assert [trial.name for trial in (shuffled, rising, falling)] == ["shuffled", "short to long", "long to short"]
    assert shuffled.total_steps == rising.total_steps == falling.total_steps
    assert falling.peak_reserved_bytes <= rising.peak_reserved_bytes, (
        "the first, longest batch leaves room for the rest"
    )


def test_the_order_asked_for_is_the_order_that_the_loop_takes():
    config = parse_args(TINY).config
    examples = prepare(config).train
    for epoch in (1, 2):
        steps = train_steps(unshuffled(examples, config, epoch), config, epoch)
        assert [e for step in steps for batch in step for e in batch.examples] == list(examples)


def is_fragmented(log):
    """Return whether the failed request would have fitted into what lay unused, in one piece."""
    oom = log.fatal_oom
    return oom and oom.largest_free_block_bytes < oom.requested_bytes <= trial_of("", log).unused_bytes


def test_a_request_that_would_fit_in_one_piece_is_fragmentation():
    log = make_log(failure=Failure(Phase.FORWARD, 4, GIB))
    carved = with_oom(log, allocated_bytes=10 * GIB, reserved_bytes=13 * GIB, largest_free_block_bytes=500 * MIB)
    full = with_oom(log, allocated_bytes=13 * GIB, reserved_bytes=13 * GIB, largest_free_block_bytes=0)
    assert is_fragmented(carved)
    assert trial_of("carved", carved).unused_bytes == 3 * GIB
    assert not is_fragmented(full)
    assert not is_fragmented(make_log())


def test_a_run_that_computes_cannot_be_replayed():
    with pytest.raises(HarnessError, match="--tensors"):
        record(parse_args([*TINY, "--tensors", "real"]).config)


@pytest.mark.slow
def test_the_command_prints_every_trial(capsys):
    assert main([*TINY, "--max-steps", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 90
    assert [line.split("  ")[0] for line in lines if "/" in line][-1] == "long to short"
