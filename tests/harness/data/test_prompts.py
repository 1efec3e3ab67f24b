"""Questions from a file of the user's, and those that the model is not asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from memory_harness.configs.crisis import load_crisis
from memory_harness.configs.errors import ConfigError
from memory_harness.configs.schema import RunConfig
from memory_harness.harness.data.clean import asks_in_crisis, normalise, replace_personal_data
from memory_harness.harness.data.prepare import prepare
from memory_harness.harness.data.prompts import read_prompts
from memory_harness.harness.log.errors import DataError
from memory_harness.harness.train.generate import requests, vetted_replies

TINY = RunConfig().with_fields(model="tiny-llama", max_length=128, samples=8)


def file(folder: Path, text: str) -> str:
    path = folder / "prompts.csv"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_every_row_is_counted(tmp_path: Path) -> None:
    text = "\ufeffid,QUESTION \n1,আজ মন খারাপ\n2,\n3,NaN\n4,আজ মন  খারাপ\n5,ভাঙা \ufffd লেখা\n6,ফোন 01712-345678\n7,ক,খ\n"
    questions, report = read_prompts(file(tmp_path, text))
    assert questions == ["আজ মন খারাপ", "ফোন [ফোন]"]
    assert (report.num_rows, report.num_usable) == (7, 2)
    assert sum(report.dropped.values()) == 5
    assert {kind: n for kind, n in report.dropped.items() if n} == dict.fromkeys(
        ("malformed", "undecodable", "blank", "missing", "duplicate"), 1
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty; give a CSV with the column question with --prompts"),
        ("prompt\nক\n", "has no columns question: found 'prompt'; --prompts needs one"),
        ("question,Questions\nক,খ\n", "has 2 columns question"),
        ("question\n  \n", "has no usable question"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DataError, match=said) as failure:
        read_prompts(file(tmp_path, text))
    assert "\n" not in str(failure.value)
    assert "--data" not in str(failure.value)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file at --prompts"):
        read_prompts(str(tmp_path / "none.csv"))


def test_all_prompts_of_a_file_are_asked_as_often_as_wanted_but_for_those_in_crisis(tmp_path: Path) -> None:
    path = file(tmp_path, "question\nঘুম আসে না\nআমি আর বাঁচতে চাই না\nI want to kill myself\nমরে গেলেই ভালো হতো\nকী করি\n")
    config = TINY.with_fields(prompts=path, generate_prompts=1, temperature=0.7, replies_per_prompt=3)
    data = prepare(config)
    assert [(r.prompt, r.sample) for r in requests(config, data)] == [(i, n) for i in (0, 4) for n in (0, 1, 2)]
    assert len({r.seed for r in requests(config, data)}) == 6
    assert [reply.prompt for reply in vetted_replies(data)] == [1, 2, 3]
    assert data.lines()[-1].startswith("prompts: 5 to answer, 3 of them by the vetted reply (NOT APPROVED")


def test_held_out_prompts_keep_their_number() -> None:
    assert len(prepare(TINY.with_fields(generate_prompts=2)).prompts) == 2


OTHERS = (
    "আত্মবিশ্বাস কীভাবে বাড়াব", "পরীক্ষায় মরিয়া হয়ে পড়ছি", "my skills are dying out", "মরেছে গাছটা",
    "সুস্থভাবে বাঁচতে ইচ্ছা করে", "বাঁচতে চাই", "নিজেকে শেষ কবে সময় দিয়েছি মনে নেই", "নিজের জীবন নিয়ে নেতিবাচক ভাবনা",
    "এই শহরে থাকতে চাই না", "আমার বাবা মারা গেছেন", "মৃত্যুর ভয় লাগে", "ঘুমের ওষুধ কি ক্ষতিকর", "হাসতে হাসতে মরে যাচ্ছি",
    "I want to diet", "I don't want to live with my parents",
    "ending my lifelong friendship", "I ran 5 kms", "a < b > c",
)  # fmt: skip


@pytest.mark.parametrize("text", OTHERS)
def test_other_questions_are_asked(text: str) -> None:
    assert not asks_in_crisis(normalise(text), load_crisis().phrases)


IN_CRISIS = (
    "আত্মহত্যা করব", "আত্নহত্যার চিন্তা আসে", "আত্ম\u200cহত্যা নিয়ে ভাবছি", "সুইসাইড করতে ইচ্ছা করে", "আর বাচতে চাই না",
    "আর বাঁচতে চাইনা", "বাঁচতে ইচ্ছে করছে না", "বেঁচে থাকার কোনো মানে নেই", "বেঁচে থেকে কী লাভ", "মরে যেতে মন চায়",
    "মরে গেলে ভালো হতো", "নিজের জীবন নিয়ে নেব", "ব্লেড দিয়ে হাত কাটি", "পৃথিবীতে আর থাকতে চাই না",
    "আমি <b>মরতে</b> চাই", "আমি&nbsp;মরতে&nbsp;চাই", "আমি\nমরতে\nচাই",
    "I wanna die", "i don’t want to live anymore", "I dont want to live", "take my own life", "end it all", "SU1CIDE",
    "I wish I was dead", "better off dead", "unalive myself", "cut my wrists",
    "ami more jete chai", "ar bachte chai na", "amar bachte icche kore na", "atmohotta korbo",
)  # fmt: skip


@pytest.mark.parametrize("text", IN_CRISIS)
def test_questions_of_self_harm_are_found_however_they_are_typed(text: str) -> None:
    assert asks_in_crisis(normalise(text), load_crisis().phrases)


def test_a_column_twice_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has the column 'question' more than once"):
        read_prompts(file(tmp_path, "question,question \nক,খ\n"))


def test_phrases_are_plain_text_found_in_any_case_and_ending() -> None:
    assert asks_in_crisis("সব শেষ (আজই) হবে", ["শেষ (আজ"])
    assert asks_in_crisis("So TIRED of it", ["tired of"])
    assert not asks_in_crisis("শেষx", ["শেষ."])


def test_every_number_of_the_vetted_reply_has_a_source_and_a_day() -> None:
    crisis = load_crisis()
    assert crisis.numbers
    for entry in crisis.numbers:
        assert entry.number in crisis.text
        assert entry.source.startswith("https://")
        assert entry.number not in crisis.reply


def test_phone_numbers_do_not_stay_in_training_text() -> None:
    text, found = replace_personal_data("ফোন করুন ০১৭১২-৩৪৫৬৭৮ অথবা +91 98765 43210, বা 09612 119911 নম্বরে")
    assert text == "ফোন করুন [ফোন] অথবা [ফোন], বা [ফোন] নম্বরে"
    assert found["phone"] == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1", "reply is missing"),
        ('reply = " "\napproved_by = ""\nphrases = []\nnumbers = []', "reply is empty"),
        ('reply = "ক"\napproved_by = ""\nphrases = [""]\nnumbers = []', "a blank one"),
        ('reply = "ক"\napproved_by = ""\nphrases = []\n[[numbers]]\nnumber = "1"', "number 1 needs name"),
        ("reply = ", "as TOML"),
    ],
)
def test_a_crisis_file_that_cannot_be_used_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "crisis.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=said):
        load_crisis(str(path))
