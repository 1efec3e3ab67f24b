"""Cleaning: whole rows or nothing, words never broken, every row accounted for."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_harness.harness.data.clean import (
    CleanReport,
    add_reflective_prefixes,
    clean,
    normalise,
    reflects,
    replace_personal_data,
)
from memory_harness.harness.data.corpus import Corpus, Row, select_rows

ZWJ, ZWNJ = "\u200d", "\u200c"


def clean_rows(*rows: Row) -> tuple[tuple[Row, ...], CleanReport]:
    cleaned, report = clean(select_rows(rows, "rows"))
    return cleaned.rows, report


def ask(question: str, answer: str = "পাশে আছি।") -> Row:
    return Row("পরিবার", "", normalise(question), normalise(answer))


@pytest.mark.parametrize(
    "question",
    [
        "আমি আত্মহত্যার কথা ভাবি।",
        "আর বেঁচে থাকতে চাই না।",
        "আমি মরে যেতে চাই",
        "I feel suicidal.",
        "Sometimes I want to die",
        "I keep cutting myself",
        "তিনি গলায় দড়ি দিয়েছিলেন।",
    ],
)
def test_a_crisis_is_set_aside_whole(question: str) -> None:
    rows, report = clean_rows(ask(question), ask("মন ভালো নেই।"))
    assert rows == (ask("মন ভালো নেই।"),)
    assert report.crisis == (ask(question),)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("সে বিষ খেয়েছিল।", "self_harm_method"),
        ("ছাদ থেকে ঝাঁপ দেয়।", "self_harm_method"),
        ("রাতে ৫০ মিলিগ্রাম খান।", "medication_dosage"),
        ("Take 20mg daily.", "medication_dosage"),
        ("দিনে দুটি ট্যাবলেট খান।", "medication_dosage"),
        ("২টি বড়ি, না ২ বড়ি।", "medication_dosage"),
    ],
)
def test_unsafe_advice_drops_the_row_with_its_reason(answer: str, reason: str) -> None:
    rows, report = clean_rows(ask("কী করব?", answer))
    assert rows == ()
    assert {k: v for k, v in report.dropped.items() if v} == {reason: 1}


@pytest.mark.parametrize(
    "answer",
    [
        "একজন ডাক্তার দেখান এবং ওষুধ নিয়ে কথা বলুন।",
        "বিষয়টি নিয়ে ভাবুন, বিষণ্ণ হবেন না।",
        "Please see a doctor about your medication.",
        "২০ মিনিট হাঁটুন, ২ গ্লাস জল খান।",
        "অমরতে চাই বলে কিছু নেই।",
    ],
)
def test_harmless_advice_stays_word_for_word(answer: str) -> None:
    rows, report = clean_rows(ask("কী করব?", answer))
    assert [row.answer for row in rows] == [normalise(answer)]
    assert report.num_normalised == 0


@pytest.mark.parametrize("answer", ["গলা\u09df দ\u09dcি", "গলা\u09af\u09bc দ\u09dcি", "গলা\u09df দ\u09a1\u09bcি"])
def test_letters_with_a_dot_below_match_in_either_form(answer: str) -> None:
    _, report = clean_rows(Row("", "", "প্রশ্ন", answer))
    assert report.dropped["self_harm_method"] == 1


def test_normalisation_keeps_joiners_and_removes_the_invisible() -> None:
    text = f"\ufeffর{ZWJ}্যাগিং\u200b  ক{ZWNJ}্ষ\x00\u00a0খ\r\n\r\n\r\n\r\nগ \t\nঘ\u00ad "
    assert normalise(text) == f"র{ZWJ}্যাগিং ক{ZWNJ}্ষ খ\n\nগ\nঘ"


@given(st.text(st.characters(codec="utf-8") | st.sampled_from(f"কয\u09bc\u09df{ZWJ}{ZWNJ}\u200b \n\r\t\u0301")))
def test_normalisation_is_idempotent_and_in_nfc(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert unicodedata.is_normalized("NFC", once)
    assert once.count(ZWJ) == text.count(ZWJ)
    assert once.count(ZWNJ) == text.count(ZWNJ)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("০১৭১২৩৪৫৬৭৮ নম্বরে", "[ফোন] নম্বরে"),
        ("01712-345678-এ ফোন করুন", "[ফোন]-এ ফোন করুন"),
        ("+৮৮০ ১৭১২ ৩৪৫ ৬৭৮।", "[ফোন]।"),
        ("+8801712345678টি", "[ফোন]টি"),
        ("a.b+c@mail.example.comকে লিখুন", "[ইমেইল]কে লিখুন"),
        ("https://example.org/a?b=1। দেখুন", "[লিংক]। দেখুন"),
        ("(www.example.orgএ)", "([লিংক]এ)"),
        ("আইডি ১৯৯৫১২৩৪৫৬৭৮৯ নম্বর", "আইডি [নম্বর] নম্বর"),
        ("4111 1111 1111 1111", "[নম্বর]"),
    ],
)
def test_personal_data_becomes_placeholders(text: str, expected: str) -> None:
    replaced, found = replace_personal_data(text)
    assert replaced == expected
    assert found.total() == 1


@pytest.mark.parametrize("text", ["১৯৭১ সালে", "২০২০-২০২১", "05-06-2021 তারিখ", "১২,৫০০ টাকা", "রাত ১০:৩০", "৩.৫ ঘণ্টা"])
def test_ordinary_numbers_stay(text: str) -> None:
    assert replace_personal_data(text)[0] == text


bengali_words = st.text(st.sampled_from(f"কখগঙমরযাািীুূেো্ংঁ{ZWJ}{ZWNJ}"), min_size=1, max_size=8).map(lambda w: "ক" + w)
personal = st.sampled_from(["০১৭১২৩৪৫৬৭৮", "x@example.com", "https://example.com/a", "1234567890123"])


@given(bengali_words, personal, bengali_words, st.sampled_from([" ", "। ", ", "]))
def test_placeholders_leave_the_words_around_them_whole(before: str, data: str, after: str, gap: str) -> None:
    replaced, found = replace_personal_data(f"{before} {data}{gap}{after}")
    assert found.total() == 1
    assert replaced.startswith(f"{before} [")
    assert replaced.endswith(f"]{gap}{after}")


texts = st.sampled_from(
    ["ভালো", "ভা\u200bলো", "কষ্ট পাচ্ছি  ", "\u200b", "আত্মহত্যা", "৫ মিলিগ্রাম", "বিষ খাওয়া", "a@example.com", "০১৭১২৩৪৫৬৭৮"]
)


@given(st.lists(st.builds(Row, st.just("ত"), st.just(""), texts, texts), max_size=30))
def test_the_counts_add_up_to_the_rows_that_came_in(rows: list[Row]) -> None:
    corpus = select_rows(rows, "rows")
    cleaned, report = clean(corpus)
    assert report.num_rows == len(corpus.rows)
    assert report.num_rows == report.num_kept + len(report.crisis) + sum(report.dropped.values())
    assert report.num_kept == len(cleaned.rows) == len(set(cleaned.rows))
    assert clean(cleaned)[0] == cleaned
    assert not any("@" in row.question + row.answer or "০১৭" in row.question + row.answer for row in cleaned.rows)


def test_prefixes_are_seeded_fit_the_topic_and_skip_answers_that_reflect() -> None:
    work = [Row("কাজের চাপ", "", f"প্রশ্ন {i}", "একটু থামুন।") for i in range(20)]
    reflecting = Row("কাজ", "", "প্রশ্ন", "বুঝতে পারছি, সময়টা কঠিন। একটু থামুন।")
    rows = [*work, reflecting, Row("Family", "", "প্রশ্ন", "কথা বলুন।"), Row("", "", "প্রশ্ন", "কথা বলুন।")]
    prefixed, num_prefixed = add_reflective_prefixes(rows, seed=1)
    assert num_prefixed == len(rows) - 1
    assert prefixed[20] == reflecting
    assert all(new.answer.endswith(" " + old.answer) for new, old in zip(prefixed, rows, strict=True) if new != old)
    assert all("কাজের" in row.answer for row in prefixed[:20])
    assert len({row.answer for row in prefixed[:20]}) > 1
    assert all(reflects(row.answer) and normalise(row.answer) == row.answer for row in prefixed)
    assert [row.question for row in prefixed] == [row.question for row in rows]
    assert add_reflective_prefixes(rows, seed=1) == (prefixed, num_prefixed)
    assert add_reflective_prefixes(rows, seed=2)[0] != prefixed
    assert add_reflective_prefixes(prefixed, seed=3) == (prefixed, 0)


def test_an_empty_corpus_stays_empty() -> None:
    cleaned, report = clean(select_rows([], "rows"))
    assert isinstance(cleaned, Corpus)
    assert cleaned.rows == ()
    assert report.line() == "0 rows cleaned: 0 kept"
