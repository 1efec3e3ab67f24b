"""A failed size as a product of the batch's and the model's sizes; the same place in runs of different lengths."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_harness.configs.units import GIB, MIB
from memory_harness.harness.devices.cuda import requested_bytes
from memory_harness.harness.log.records import BatchShape, Phase
from memory_harness.probes.detectors import detect
from memory_harness.probes.detectors.analysis import (
    End,
    analyse_failure,
    factor_request,
    recurrence,
    recurrence_in_words,
)
from tests.builders import LLAMA_8B, Failure, as_published_oom, make_log, with_oom

V, H, MLP, HEADS = LLAMA_8B.vocab_size, LLAMA_8B.hidden_size, LLAMA_8B.intermediate_size, LLAMA_8B.num_heads
KV = LLAMA_8B.num_kv_heads * LLAMA_8B.head_dim


def batch(batch_size, length):
    return BatchShape(batch_size, length, (length,) * batch_size, batch_size * length)


def readings(num_bytes, shape, **options):
    return [product.what for product in factor_request(num_bytes, shape, LLAMA_8B, **options)]


@pytest.mark.parametrize("element", [2, 4])
@pytest.mark.parametrize("shape", [batch(1, 1000), batch(2, 777), batch(8, 2048)], ids=str)
def test_each_kind_of_tensor_is_recognised_first(shape, element):
    b, n = shape.batch_size, shape.padded_length
    dtype = {2: "16-bit", 4: "float32"}[element]
    sizes = {
        "logits": b * n * V,
        "hidden states": b * n * H,
        "MLP activations": b * n * MLP,
        "keys or values": b * n * KV,
        "attention scores": b * HEADS * n * n,
        "attention mask": b * n * n,
    }
    for what, numel in sizes.items():
        found = factor_request(numel * element, shape, LLAMA_8B)
        assert f"{dtype} {what}" in [product.what for product in found]
        assert all(product.num_bytes == numel * element for product in found)


@pytest.mark.parametrize(
    ("numel", "what"),
    [(V * H, "embedding or output head"), (MLP * H, "MLP weight"), (H * H, "query or output weight")],
)
def test_weights_are_recognised_without_a_batch(numel, what):
    assert f"float32 {what}" in readings(numel * 4, None)
    assert f"16-bit {what}" in readings(numel * 2, None)


def test_what_reads_two_ways_is_read_both_ways():
    """16-bit logits of as many tokens as the model has hidden units are as large as its output head."""
    assert readings(V * H * 2, batch(1, H)) == ["16-bit logits", "16-bit embedding or output head"]


def test_logits_of_another_number_of_tokens_are_told_by_the_vocabulary():
    (product,) = factor_request(77 * V * 2, batch(1, 2048), LLAMA_8B)
    assert (product.what, str(product)) == ("16-bit logits", f"77 × {V} × 2 B = 18.84 MiB")


def test_a_vocabulary_that_divides_anything_tells_nothing():
    assert factor_request(1000 * 4096, None, replace(LLAMA_8B, vocab_size=1024, hidden_size=64)) == []


def test_an_unknown_size_is_left_open():
    assert readings(12_345_678, batch(1, 2048)) == []
    assert factor_request(12_345_678, batch(8, 2048), None) == []


def test_without_a_model_the_known_vocabularies_are_tried():
    (product, _) = factor_request(16384 * V * 4, None, None)
    assert str(product) == f"16384 × {V} × 4 B = 7.83 GiB"


@given(st.integers(1, 16), st.integers(64, 4096), st.sampled_from([2, 4]))
def test_the_two_decimals_of_cuda_s_message_are_enough_for_logits(sequences, length, element):
    """PyTorch prints the segment: rounded up to 2 MiB, then to two decimals."""
    asked = sequences * length * V * element
    segment = -(-asked // (2 * MIB)) * 2 * MIB
    unit, name = (GIB, "GiB") if segment >= GIB else (MIB, "MiB")
    printed = requested_bytes(f"CUDA out of memory. Tried to allocate {segment / unit:.2f} {name}. GPU 0 has")
    found = factor_request(printed, batch(sequences, length), LLAMA_8B, rounded=True)
    assert asked in [product.num_bytes for product in found]


def test_a_rounded_size_is_not_taken_for_an_exact_one():
    printed = requested_bytes("Tried to allocate 7.83 GiB.")
    assert readings(printed, batch(8, 2048)) == []
    assert readings(printed, batch(8, 2048), rounded=True) == ["float32 logits"]


def test_the_failure_says_what_lived_and_what_lay_unused():
    live = {"parameter": 7 * GIB, "activation": 2 * GIB, "logits": 3 * GIB}
    failure = analyse_failure(
        with_oom(as_published_oom(), live_bytes=live, reserved_bytes=13 * GIB, allocated_bytes=12 * GIB)
    )
    assert [category for category, _ in failure.live] == ["parameter", "logits", "activation"]
    assert failure.free_bytes == GIB
    assert failure.evidence["live_parameter_bytes"] == 7 * GIB
    assert failure.evidence["request_reading_1"].startswith(f"float32 logits: 8 × 2048 × {V} × 4 B = 7.83 GiB")


def test_a_run_that_completes_has_no_failure():
    assert analyse_failure(make_log()) is None


@pytest.mark.parametrize("requested", [None, 12_345_678], ids=["known cause", "no known cause"])
def test_the_finding_that_ends_the_run_carries_the_failure(requested):
    log = make_log(failure=Failure(Phase.EVAL, 16, requested))
    fatal = detect(log)[0]
    assert fatal.severity == "error"
    assert fatal.evidence["num_alloc_retries"] == 1
    assert ("request_reading_1" in fatal.evidence) == (requested is None)


HALF = [End(240, 480), End(800, 1600), End(1600, 3200)]
FIXED = [End(240, 480), End(240, 1600), End(241, 3200)]


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        (HALF, "same fraction"),
        (FIXED, "same step"),
        ([End(240, 480), End(300, 1600)], None),
        ([End(1600, 3200)], None),
        ([End(1600, 3200), End(1610, 3220)], None),
        ([], None),
    ],
    ids=["half", "fixed step", "neither", "one run", "runs of like length", "none"],
)
def test_the_same_fraction_is_told_from_the_same_step(ends, expected):
    assert recurrence(ends) == expected
    assert (expected is None) == (recurrence_in_words(ends) == "")


def test_the_recurrence_is_said_in_words():
    assert "after 50% of the run" in recurrence_in_words(HALF)
    assert "step 240" in recurrence_in_words(FIXED)
