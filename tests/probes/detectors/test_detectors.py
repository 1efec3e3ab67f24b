"""Each detector on a log that shows its cause, on a clean log, and on look-alikes."""

from dataclasses import replace

import pytest

from memory_harness.configs.units import GIB, MIB
from memory_harness.harness.log.records import BatchShape, Outcome, Phase
from memory_harness.probes.detectors import detect
from memory_harness.probes.findings import UNEXPLAINED_GROWTH
from tests.builders import (
    AS_PUBLISHED,
    FLOOR,
    LLAMA_8B,
    Failure,
    as_published_oom,
    make_log,
    with_oom,
)

LEAN = AS_PUBLISHED.with_fields(kbit_upcast=False, batching="dynamic", eval_batch_size=1, loss="chunked")
SHORT = [200, 260, 310, 420, 180, 350, 290, 240] * 3


def causes(log, severity=None):
    return [f.cause for f in detect(log) if severity in (None, f.severity)]


def found(log, cause):
    return [f for f in detect(log) if f.cause == cause]


def error_of(log):
    errors = [f for f in detect(log) if f.severity == "error"]
    assert len(errors) == 1
    return errors[0]


def test_a_clean_run_has_no_findings():
    log = make_log(LEAN, lengths=SHORT)
    assert log.outcome is Outcome.COMPLETED
    assert detect(log) == []


def test_an_unfinished_log_without_an_oom_has_no_error():
    log = replace(make_log(LEAN, lengths=SHORT), end=None)
    assert causes(log) == []


# eval-batch-logits


def test_the_published_failure_is_the_evaluation_batch():
    finding = error_of(as_published_oom())
    assert (finding.cause, finding.phase, finding.steps) == ("eval-batch-logits", Phase.EVAL, (16, 16))
    assert finding.bytes == 8 * 2048 * 128256 * 4 == 8405385216
    assert "8 × 2048 × 128256 × 4 B = 7.83 GiB" in finding.explanation
    assert "half of its steps (step 16 of 32)" in finding.explanation
    assert "whatever the number of samples" in finding.explanation
    assert "Training itself fits" in finding.explanation
    assert finding.where == "transformers/loss/loss_utils.py:54"
    factors = ("eval_batch_size", "padded_length", "vocab_size", "bytes_per_element")
    assert [finding.evidence[name] for name in factors] == [8, 2048, 128256, 4]
    assert (finding.evidence["step"], finding.evidence["total_steps"], finding.evidence["fraction"]) == (16, 32, 0.5)


@pytest.mark.parametrize(("epochs", "words"), [(3, "a third"), (4, "a quarter"), (7, "1/7")])
def test_the_fraction_follows_the_number_of_epochs(epochs, words):
    assert f"{words} of its steps" in error_of(as_published_oom(epochs=epochs)).explanation


def test_an_evaluation_every_n_steps_makes_no_claim_about_the_fraction():
    explanation = error_of(as_published_oom(eval_every=16)).explanation
    assert "every 16 steps" in explanation
    assert "whatever" not in explanation


def test_the_16_bit_logits_of_the_evaluation_count_too():
    log = with_oom(as_published_oom(), requested_bytes=8 * 2048 * 128256 * 2, allocated_bytes=11 * GIB)
    finding = error_of(log)
    assert (finding.cause, finding.evidence["bytes_per_element"]) == ("eval-batch-logits", 2)
    assert "16-bit" in finding.explanation


def test_another_size_in_evaluation_is_not_called_logits():
    log = with_oom(as_published_oom(), requested_bytes=8 * 2048 * 14336 * 4, allocated_bytes=14 * GIB)
    assert causes(log, "error") == [UNEXPLAINED_GROWTH]
    assert "eval-batch-logits" not in causes(log)


def test_an_evaluation_no_larger_than_training_is_not_its_batch():
    config = AS_PUBLISHED.with_fields(eval_batch_size=1)
    log = make_log(config, failure=Failure(Phase.EVAL, 16, allocated_bytes=14 * GIB))
    assert "eval-batch-logits" not in causes(log)


def test_a_longer_sample_in_an_evaluation_as_wide_as_training_is_not_its_batch():
    config = LEAN.with_fields(loss="full")
    log = make_log(config, lengths=SHORT, failure=Failure(Phase.EVAL, 16, allocated_bytes=14 * GIB))
    assert "eval-batch-logits" not in causes(log)


def test_a_wider_evaluation_of_fewer_tokens_is_not_its_batch():
    log = as_published_oom()
    short = replace(log.ooms[0].batch, padded_length=128)
    log = with_oom(log, batch=short, requested_bytes=8 * 128 * 128256 * 4, allocated_bytes=14 * GIB)
    assert "eval-batch-logits" not in causes(log)


def test_the_copy_of_a_float32_head_is_not_taken_for_logits():
    """8 × 512 tokens = the hidden size: a float16 copy of the head is as large as the float16 logits."""
    log = as_published_oom(max_length=512)
    log = with_oom(log, requested_bytes=LLAMA_8B.vocab_size * LLAMA_8B.hidden_size * 2, allocated_bytes=14 * GIB)
    assert causes(log, "error") == [UNEXPLAINED_GROWTH]
    log.run.config["model"]["kbit_upcast"] = False
    assert causes(log, "error") == ["eval-batch-logits"]


def test_an_evaluation_that_nearly_fills_the_card_is_a_warning():
    config = AS_PUBLISHED.with_fields(max_length=512)
    log = make_log(config, budget_bytes=14 * GIB)
    (finding,) = [f for f in detect(log) if f.cause == "eval-batch-logits"]
    assert finding.severity == "warning"
    assert "8 × 512 × 128256 × 4 B = 1.96 GiB" in finding.explanation


def test_an_evaluation_with_room_to_spare_is_not_mentioned():
    log = make_log(AS_PUBLISHED.with_fields(max_length=512), budget_bytes=24 * GIB)
    assert "eval-batch-logits" not in causes(log)


def test_an_evaluation_that_fills_the_card_with_something_else_is_not_its_logits():
    log = make_log(AS_PUBLISHED.with_fields(max_length=512), budget_bytes=14 * GIB)
    log = replace(log, run=replace(log.run, model=replace(LLAMA_8B, vocab_size=4000)))
    assert "eval-batch-logits" not in causes(log)


# logits-fp32-copies


@pytest.mark.parametrize("phase", [Phase.FORWARD, Phase.BACKWARD])
def test_a_training_step_that_asks_for_float32_logits(phase):
    config = AS_PUBLISHED.with_fields(max_length=4096)
    log = make_log(config, failure=Failure(phase, 1, allocated_bytes=int(12.6 * GIB)))
    finding = error_of(log)
    assert (finding.cause, finding.phase, finding.bytes) == ("logits-fp32-copies", phase, 4096 * 128256 * 4)
    assert "1 × 4096 × 128256 × 4 B = 1.96 GiB" in finding.explanation


def test_the_logits_share_of_a_run_that_fits_is_information():
    config = AS_PUBLISHED.with_fields(eval_batch_size=1)
    (finding,) = [f for f in detect(make_log(config)) if f.cause == "logits-fp32-copies"]
    assert finding.severity == "info"
    assert finding.bytes == 5 * 2048 * 128256 * 2
    (held,) = found(make_log(config.with_fields(hold_outputs=True)), "logits-fp32-copies")
    assert held.bytes == 6 * 2048 * 128256 * 2


@pytest.mark.parametrize("changes", [{"loss": "chunked"}, {"max_length": 512}])
def test_small_or_chunked_logits_are_not_mentioned(changes):
    log = make_log(AS_PUBLISHED.with_fields(eval_batch_size=1, **changes))
    assert "logits-fp32-copies" not in causes(log)


# kbit-upcast


def test_the_upcast_is_a_warning_where_memory_is_tight_and_information_elsewhere():
    (tight,) = [f for f in detect(as_published_oom()) if f.cause == "kbit-upcast"]
    (roomy,) = [f for f in detect(make_log(budget_bytes=80 * GIB)) if f.cause == "kbit-upcast"]
    assert (tight.severity, roomy.severity) == ("warning", "info")
    assert tight.bytes == 2 * 128256 * 4096 * 2
    assert "1.96 GiB" in tight.explanation


def test_tied_embeddings_are_cast_once():
    log = make_log()
    log = replace(log, run=replace(log.run, model=replace(LLAMA_8B, tie_word_embeddings=True)))
    assert found(log, "kbit-upcast")[0].bytes == 128256 * 4096 * 2


@pytest.mark.parametrize("changes", [{"kbit_upcast": False}, {"dtype": "float32"}, {"quantization": "none"}])
def test_without_an_upcast_nothing_is_said_of_it(changes):
    assert "kbit-upcast" not in causes(make_log(AS_PUBLISHED.with_fields(**changes)))


# experts-not-quantised, weights-not-quantised

MIXTURE = replace(LLAMA_8B, num_parameters=30 * 10**9, num_quantised_parameters=10**9, num_expert_parameters=28 * 10**9)
WIDE = replace(LLAMA_8B, num_parameters=12 * 10**9)


def log_of(model, config=AS_PUBLISHED, **fields):
    log = make_log(config, **fields)
    return replace(log, run=replace(log.run, model=model))


def test_experts_that_stayed_wide_are_counted_in_the_width_that_they_have():
    (finding,) = found(log_of(MIXTURE), "experts-not-quantised")
    assert finding.evidence["bytes_per_weight"] == 4, "the published recipe casts them to float32"
    assert "93% of the weights are experts, which stay in 32 bits" in finding.title
    (half,) = found(log_of(MIXTURE, AS_PUBLISHED.with_fields(kbit_upcast=False)), "experts-not-quantised")
    assert half.evidence["bytes_per_weight"] == 2
    assert half.bytes == pytest.approx(28e9 * (2 - 0.516))
    assert half.severity == "warning"


def test_a_run_that_has_no_room_for_its_experts_dies_of_them():
    log = log_of(MIXTURE, failure=Failure(Phase.LOAD, 0, 3 * GIB))
    (error,) = [finding for finding in detect(log) if finding.severity == "error"]
    assert error.cause == "experts-not-quantised"


def test_a_large_part_outside_of_linear_layers_is_told():
    (finding,) = found(log_of(WIDE), "weights-not-quantised")
    assert finding.evidence["wide_parameters"] == 12 * 10**9 - 6_979_321_856 - 2 * 128256 * 4096 - 6_815_744


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        (LLAMA_8B, {}),
        (MIXTURE, {"quantization": "none"}),
        (replace(MIXTURE, num_quantised_parameters=29 * 10**9, num_expert_parameters=0), {"quantise_experts": True}),
        (MIXTURE, {"quantise_experts": True}),
        (replace(LLAMA_8B, num_quantised_parameters=0), {}),
    ],
    ids=["dense", "nothing is quantised", "experts in 4 bits", "died while loading them", "a log that does not say"],
)
def test_weights_that_are_quantised_or_are_not_to_be_are_no_finding(model, changes):
    said = causes(log_of(model, AS_PUBLISHED.with_fields(**changes)))
    assert not {"experts-not-quantised", "weights-not-quantised"} & set(said)


# padding-to-max


def test_short_samples_padded_to_the_maximum():
    finding = found(make_log(lengths=[300]), "padding-to-max")[0]
    assert (finding.cause, finding.severity) == ("padding-to-max", "warning")
    assert finding.evidence["padded_share"] == pytest.approx(1 - 300 / 2048, abs=1e-3)
    assert finding.title.startswith("85%")


@pytest.mark.parametrize(
    "log",
    [
        make_log(lengths=[1900]),
        make_log(AS_PUBLISHED.with_fields(batching="dynamic"), lengths=[300, 1200]),
        make_log(AS_PUBLISHED.with_fields(samples=5), lengths=[300]),
    ],
    ids=["long samples", "dynamic padding", "too few samples"],
)
def test_padding_is_silent_otherwise(log):
    assert found(log, "padding-to-max") == []


# longest-sample

FULL_LOSS = LEAN.with_fields(loss="full")


def longest_sample_log(config=FULL_LOSS, lengths=(*SHORT, 2048), failing_step=13, **changes):
    failure = Failure(Phase.FORWARD, failing_step, allocated_bytes=int(13.9 * GIB))
    return make_log(config, lengths=lengths, failure=failure, **changes)


def test_a_late_and_longest_sample_is_named():
    finding = error_of(longest_sample_log())
    assert finding.cause == "longest-sample"
    assert (finding.evidence["length"], finding.evidence["percentile"]) == (2048, 100.0)
    assert finding.evidence["largest_before_tokens"] == 448
    assert "2048 tokens" in finding.title


def test_the_logits_of_the_longest_sample_contribute_but_do_not_end_the_run():
    assert [f.cause for f in detect(longest_sample_log()) if f.severity == "warning"] == ["logits-fp32-copies"]


def test_the_longest_sample_may_fail_in_backward_too():
    log = make_log(
        FULL_LOSS, lengths=(*SHORT, 2048), failure=Failure(Phase.BACKWARD, 13, allocated_bytes=int(13.9 * GIB))
    )
    assert error_of(log).cause == "longest-sample"


def test_many_samples_in_one_sequence_are_no_long_one():
    log = longest_sample_log()
    failed = log.fatal_oom
    packed = replace(failed, batch=replace(failed.batch, lengths=(512,) * 4))
    assert "longest-sample" not in causes(replace(log, ooms=[packed]))


@pytest.mark.parametrize(
    "log",
    [
        longest_sample_log(AS_PUBLISHED),
        longest_sample_log(lengths=(*SHORT[:-1], 2000, 2048)),
        longest_sample_log(leak_per_step=100 * MIB),
        longest_sample_log(lengths=(*SHORT[:4], 2048), failing_step=3),
    ],
    ids=["equal lengths", "hardly longer", "a leak", "too early to tell"],
)
def test_the_longest_sample_is_not_blamed_otherwise(log):
    assert "longest-sample" not in causes(log)


def test_warm_up_growth_is_not_a_leak():
    assert error_of(longest_sample_log(warm_up_growth=2 * GIB)).cause == "longest-sample"


# fragmentation


def fragmented_log(**changes):
    failure = Failure(
        Phase.FORWARD, 12, requested_bytes=GIB, allocated_bytes=FLOOR + 2 * GIB, reserved_bytes=14 * GIB, **changes
    )
    return make_log(LEAN, lengths=SHORT, failure=failure)


def test_a_request_that_would_fit_in_one_piece_is_fragmentation():
    finding = error_of(fragmented_log())
    assert finding.cause == "fragmentation"
    assert finding.bytes == 14 * GIB - FLOOR - 2 * GIB


def test_logits_of_an_evaluation_that_training_never_needed_go_before_fragmentation():
    """They would have fitted in one piece, but the loss needs them twice, and a smaller batch costs nothing."""
    config = AS_PUBLISHED.with_fields(batching="dynamic", max_length=1024)
    log = make_log(config, lengths=SHORT, failure=Failure(Phase.EVAL, 16, None, 9 * GIB, 14 * GIB))
    assert error_of(log).cause == "eval-batch-logits"
    assert "fragmentation" in causes(log, "warning")


def test_a_request_that_would_fit_in_one_piece_is_fragmentation_at_varying_lengths_only():
    log = make_log(LEAN, lengths=[300], failure=Failure(Phase.FORWARD, 12, GIB, FLOOR + 2 * GIB, 14 * GIB))
    assert causes(log, "error") == [UNEXPLAINED_GROWTH]


def test_a_small_request_on_a_full_card_is_not_fragmentation():
    log = with_oom(
        fragmented_log(), requested_bytes=64 * MIB, allocated_bytes=int(13.6 * GIB), reserved_bytes=int(14.39 * GIB)
    )
    assert causes(log, "error") == [UNEXPLAINED_GROWTH]


@pytest.mark.parametrize(
    ("allocated", "reserved"), [(14 * GIB, int(14.2 * GIB)), (9 * GIB, 10 * GIB)], ids=["full", "stopped by others"]
)
def test_a_request_too_large_or_stopped_from_outside_is_not_fragmentation(allocated, reserved):
    log = with_oom(fragmented_log(), allocated_bytes=allocated, reserved_bytes=reserved)
    assert causes(log, "error") == [UNEXPLAINED_GROWTH]


@pytest.mark.parametrize(("retries", "severity"), [(1, "info"), (3, "warning")])
def test_a_carved_cache_with_several_retries_is_a_warning(retries, severity):
    log = make_log(LEAN, lengths=SHORT, cached_bytes=4 * GIB, retries=retries)
    (finding,) = detect(log)
    assert (finding.cause, finding.severity) == ("fragmentation", severity)
    assert finding.evidence["num_alloc_retries"] == retries


@pytest.mark.parametrize(
    "log",
    [
        make_log(LEAN, lengths=SHORT, cached_bytes=4 * GIB, retries=0),
        make_log(LEAN, lengths=[300], cached_bytes=4 * GIB, retries=3),
        make_log(LEAN, lengths=SHORT, cached_bytes=GIB, retries=3),
    ],
    ids=["no retries", "one length", "little cached"],
)
def test_a_large_cache_alone_is_no_fragmentation(log):
    assert detect(log) == []


# all together


def test_findings_are_ordered_and_hold_one_error():
    log = as_published_oom()
    severities = [f.severity for f in detect(log)]
    assert severities == sorted(severities, key=["error", "warning", "info"].index)
    assert severities.count("error") == 1


def test_an_unknown_failure_is_reported_without_a_name():
    log = make_log(LEAN, lengths=SHORT, failure=Failure(Phase.LOAD, 0, 2 * GIB, allocated_bytes=13 * GIB))
    (finding,) = detect(log)
    assert (finding.cause, finding.severity, finding.bytes) == (UNEXPLAINED_GROWTH, "error", 2 * GIB)


def test_a_log_without_a_model_does_not_stop_the_detectors():
    log = as_published_oom()
    log = replace(log, run=replace(log.run, model=None))
    assert causes(log, "error") == [UNEXPLAINED_GROWTH]


def test_a_cublas_workspace_is_no_kept_cache():
    """A run that is resumed after its last step multiplies matrices for the first time when it answers prompts."""
    log = make_log()
    tokens = 256  # its keys and values take what the workspace of an sm_90 card takes: 32 MiB
    floor = log.phases[-1].after.allocated_bytes
    generate = replace(
        next(p for p in log.phases if p.phase is Phase.EVAL),
        phase=Phase.GENERATE,
        batch=BatchShape(1, tokens - 16, (tokens - 16,), 0),
        allocated_before_bytes=floor,
        after=replace(log.phases[-1].after, allocated_bytes=floor + 32 * MIB),
    )
    load = next(p for p in log.phases if p.phase is Phase.LOAD)
    assert len(found(replace(log, phases=[*log.phases, generate]), "kv-cache-held")) == 1
    assert found(replace(log, phases=[*log.phases, load, generate]), "kv-cache-held") == []
