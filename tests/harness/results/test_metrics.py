"""Metrics of Bengali texts: what is the same scores as the same, what is not does not."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from memory_harness.harness.results.metrics import bits_per_byte, comparable, perplexity, score_texts, words

TEXT = "আপনার কথা শুনে বুঝতে পারছি, সময়টা সহজ যাচ্ছে না। একটু বিশ্রাম নিন।"
OTHER = "আকাশে মেঘ জমেছে বলে পাখিরা তাড়াতাড়ি ঘরে ফেরে, নদীর জল বাড়ে।"

SAME = {
    "dotted letters as one code point or two": (
        "ব\u09dc, গা\u09dd, সম\u09df কেটে গেল",
        "ব\u09a1\u09bc, গা\u09a2\u09bc, সম\u09af\u09bc কেটে গেল",
    ),
    "vowel signs in one part or two": (
        "ক\u09cbথায় ক\u09ccশল গেল আজ",
        "ক\u09c7\u09beথায় ক\u09c7\u09d7শল গেল আজ",
    ),
    "joiners": ("র\u200d্যাব এর সাথে কথা হলো", "র্যাব এর সাথে কথা হলো"),
    "khanda ta, old and new": ("হঠাৎ সৎ মানুষ পেলাম", "হঠাত\u09cd\u200d সত\u09cd\u200d মানুষ পেলাম"),
    "dandas": ("ভালো থাকুন। আবার কথা হবে।", "ভালো থাকুন| আবার কথা হবে৷"),
    "digits": ("দিনে ২৪ ঘণ্টা এবং ৭ দিন", "দিনে 24 ঘণ্টা এবং 7 দিন"),
    "whitespace": ("ভালো থাকুন আপনি সব সময়", " ভালো  থাকুন\nআপনি\u00a0সব সময় "),
}


@pytest.mark.parametrize("name", SAME)
def test_what_reads_alike_is_alike(name: str) -> None:
    one, other = SAME[name]
    assert one != other
    scores = score_texts([one], [[other]])
    assert scores.bleu == pytest.approx(100)
    assert scores.chrf == pytest.approx(100)
    assert (scores.rouge1, scores.rouge2, scores.rougeL) == (1, 1, 1)


@pytest.mark.parametrize("text", [TEXT, "হ্যাঁ", "ভালো থাকুন"])
def test_identical_texts_are_perfect_and_others_are_not(text: str) -> None:
    same = score_texts([text], [[text]])
    assert same.bleu == pytest.approx(100)
    assert (same.rouge1, same.rouge2, same.rougeL) == (1, 1, 1)
    different = score_texts([text], [[OTHER]])
    assert different.bleu is not None
    assert different.bleu < 10
    assert different.rouge1 == different.rougeL == 0


def test_a_vowel_sign_makes_another_word() -> None:
    assert words("কাল কালি কালী") == ["কাল", "কালি", "কালী"]
    assert score_texts(["কাল"], [["কালি"]]).rouge1 == 0


def test_the_nearest_of_several_references_counts_and_replies_without_any_do_not() -> None:
    scores = score_texts([TEXT, OTHER, TEXT], [[OTHER, TEXT], [OTHER], []])
    assert scores.num_replies == 2
    assert scores.bleu == pytest.approx(100)
    assert scores.rougeL == 1
    assert score_texts([TEXT], [[]]).bleu is None


def test_part_of_a_text_scores_in_between() -> None:
    scores = score_texts([TEXT.partition("।")[0]], [[TEXT]])
    for score, best in ((scores.bleu, 100), (scores.chrf, 100), (scores.rouge1, 1), (scores.rouge2, 1)):
        assert score is not None
        assert 0.3 * best < score < best


def test_signatures_say_how_it_was_computed() -> None:
    signatures = score_texts([TEXT], [[TEXT]]).signatures
    assert "tok:intl" in signatures["bleu"]
    assert "version:" in signatures["chrf"]
    assert r"\p{M}" in signatures["rouge"]


@given(st.text(alphabet="অআকখগতড়ঢ়য়াি্েোঁ।৷|০১২12 \u200c\u200d\n", max_size=40))
def test_comparable_texts_stay_as_they_are(text: str) -> None:
    once = comparable(text)
    assume(once)
    assert comparable(once) == once


def test_perplexity_and_bits_per_byte_follow_from_the_loss() -> None:
    assert perplexity(math.log(7)) == pytest.approx(7)
    assert perplexity(1e6) is None
    # a model that gives each of 256 bytes the same share spends 8 bits on each, in tokens of one byte or of two
    assert bits_per_byte(math.log(256), 10, 10) == pytest.approx(8)
    assert bits_per_byte(2 * math.log(256), 5, 10) == pytest.approx(8)
    assert perplexity(None) is bits_per_byte(None, 1, 1) is bits_per_byte(1.0, 1, None) is None
