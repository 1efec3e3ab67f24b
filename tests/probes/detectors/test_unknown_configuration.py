"""Logs of loops that are not ours: what they were configured to do is not known, and nothing is claimed about it."""

import dataclasses

import pytest

from memory_harness.harness.log.records import ForwardFacts, Phase
from memory_harness.probes.detectors import detect
from memory_harness.reports.summary import phase_in_words, result_of_log, verdict_sentence
from tests.builders import AS_PUBLISHED, Failure, as_published_oom, make_log

OF_THE_CONFIGURATION = {
    "bucketing-raises-peak",
    "checkpointing-lost",
    "experts-not-quantised",
    "head-trainable",
    "kbit-upcast",
    "logits-fp32-copies",
    "merge-dequantises",
    "model-states-exceed-budget",
    "truncation-missing",
    "weights-not-quantised",
}
"""Causes that are read off the configuration, or off its difference to what happened."""


def without_config(log, **changes):
    return dataclasses.replace(log, run=dataclasses.replace(log.run, config={}, **changes))


def causes(log):
    return {finding.cause for finding in detect(log)}


def with_forward_facts(log, facts):
    phases = [dataclasses.replace(p, forward=facts) if p.phase is Phase.FORWARD else p for p in log.phases]
    return dataclasses.replace(log, phases=phases)


@pytest.mark.parametrize("batching", ["padded", "dynamic", "bucketed"])
@pytest.mark.parametrize("lengths", [(300,), (4000, 300), (2049,)])
def test_a_healthy_run_shows_nothing_of_a_configuration(batching, lengths):
    config = AS_PUBLISHED.with_fields(batching=batching, max_length=4096, train_batch_size=4, samples=200)
    log = with_forward_facts(make_log(config, lengths=lengths), ForwardFacts(True, 0, 0))
    assert not causes(without_config(log)) & OF_THE_CONFIGURATION


def test_padding_to_one_length_is_seen_in_the_batches():
    log = without_config(make_log(AS_PUBLISHED.with_fields(samples=100), lengths=(300, 200, 100)))
    (finding,) = [f for f in detect(log) if f.cause == "padding-to-max"]
    assert "padded to 2048 tokens" in finding.explanation


@pytest.mark.parametrize(("batching", "lengths"), [("dynamic", (300, 200, 100)), ("padded", (2048,))])
def test_batches_as_long_as_their_longest_are_not_padded_to_a_maximum(batching, lengths):
    config = AS_PUBLISHED.with_fields(samples=100, batching=batching)
    assert "padding-to-max" not in causes(without_config(make_log(config, lengths=lengths)))


def test_the_evaluation_that_fails_is_named_without_a_claim_about_epochs():
    finding = detect(without_config(as_published_oom()))[0]
    assert finding.cause == "eval-batch-logits"
    assert "It comes after step 16 of 32." in finding.explanation
    assert "epoch" not in finding.explanation


def test_an_evaluation_without_training_is_not_compared_with_it():
    log = as_published_oom()
    log = dataclasses.replace(log, phases=[p for p in log.phases if p.phase is Phase.EVAL], steps=[])
    assert "eval-batch-logits" not in causes(without_config(log))


def test_logits_that_do_not_fit_in_training_are_named_by_their_size():
    log = make_log(lengths=(2048,), failure=Failure(Phase.BACKWARD, 3))
    assert causes(without_config(log)) >= {"logits-fp32-copies"}


@pytest.mark.parametrize("total", [0, 32])
def test_the_moment_in_words(total):
    log = without_config(as_published_oom(), total_steps=total, steps_per_epoch=16 if total else 0)
    words = phase_in_words(log, Phase.EVAL, 16, 1)
    at_end, after = "the evaluation at the end of epoch 1 (step 16 of 32)", "the evaluation after step 16"
    assert words == (at_end if total else after)
    assert phase_in_words(log, Phase.STEP, 3, 1) == ("step 3 of 32" if total else "step 3")
    assert words in verdict_sentence(result_of_log(log))
