"""Cleaning: unsafe rows are taken out whole, personal data becomes placeholders, text is normalised.

Nothing is ever cut out of a sentence: half a sentence of advice can say the opposite of the whole.
"""

from __future__ import annotations

import functools
import html
import random
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import regex

from memory_harness.configs.tables import read_toml
from memory_harness.harness.data.corpus import Corpus, Row, count_phrases

WORD_CHARS = r"\p{L}\p{M}\p{N}\u200c\u200d"
"""Characters of a word. Python's own `\\w` and `\\b` break Bengali words at every vowel sign and joiner."""

DROPPED = {
    "self_harm_method": "naming a method of self-harm",
    "medication_dosage": "giving a dose of medicine",
    "blank": "blank once cleaned",
    "duplicate": "equal to an earlier one once cleaned",
}
"""Why a row is left out, in the order in which it is tested, and how a report calls it. Crises are tested first."""


@dataclass(frozen=True)
class CleanReport:
    """What became of every row: `num_rows` = `num_kept` + rows in `crisis` + all of `dropped`."""

    num_rows: int
    num_kept: int
    crisis: tuple[Row, ...]
    """rows that speak of suicide or self-harm: they need replies that people have vetted, so they are not trained on"""
    dropped: dict[str, int]
    """rows by reason, every key of `DROPPED`"""
    placeholders: dict[str, int]
    """personal data replaced in the rows that were kept, by kind: url, email, phone, number"""
    num_normalised: int
    """rows kept whose text was changed by Unicode normalisation, control characters or whitespace"""
    is_cleaned: bool = True
    """people's own data is taken as it is"""

    def line(self) -> str:
        """Return the report as one line, reasons that did not occur left out."""
        if not self.is_cleaned:
            return f"{self.num_rows} rows taken as they are"
        parts = [f"{self.num_rows} rows cleaned: {self.num_kept} kept"]
        if self.crisis:
            parts.append(f"{len(self.crisis)} set aside for vetted replies")
        parts += count_phrases(self.dropped, DROPPED)
        replaced = count_phrases(self.placeholders, {kind: kind for kind in self.placeholders})
        if replaced:
            parts.append(f"personal data replaced: {', '.join(replaced)}")
        return ", ".join(parts)


def clean(corpus: Corpus) -> tuple[Corpus, CleanReport]:
    """Return the corpus with unsafe rows taken out and the others normalised and stripped of personal data."""
    kept: dict[Row, None] = {}
    crisis: list[Row] = []
    dropped: Counter[str] = Counter()
    placeholders: Counter[str] = Counter()
    num_normalised = 0
    for original in corpus.rows:
        cleaned = _clean_row(original)
        if cleaned.is_crisis:
            crisis.append(cleaned.row)
        elif cleaned.drop_reason is not None:
            dropped[cleaned.drop_reason] += 1
        elif cleaned.row in kept:
            dropped["duplicate"] += 1
        else:
            kept[cleaned.row] = None
            placeholders += cleaned.placeholders
            num_normalised += cleaned.is_normalised
    counts = {reason: dropped[reason] for reason in DROPPED}
    kinds = {kind: placeholders[kind] for kind in _PERSONAL}
    report = CleanReport(len(corpus.rows), len(kept), tuple(crisis), counts, kinds, num_normalised)
    return replace(corpus, rows=tuple(kept)), report


class _Cleaned(NamedTuple):
    """What becomes of one row, whatever the others are."""

    row: Row
    placeholders: Counter[str]
    is_normalised: bool
    """its text was changed by more than placeholders"""
    is_crisis: bool
    drop_reason: str | None


@functools.lru_cache(maxsize=4096)  # a probe prepares the same rows for each fix, and some for other numbers of samples
def _clean_row(original: Row) -> _Cleaned:
    normalised = _normalise_row(original)
    row, found = _replace_personal_data(normalised)
    answer = _as_read(row.answer)
    is_crisis = asks_in_crisis(row.question) or _pattern("crisis").search(answer) is not None
    return _Cleaned(row, found, normalised != original, is_crisis, _drop_reason(row, answer))


def uncleaned(corpus: Corpus) -> CleanReport:
    """Return the report on rows that are taken as they are."""
    return CleanReport(len(corpus.rows), len(corpus.rows), (), {}, {}, 0, is_cleaned=False)


@functools.lru_cache(maxsize=1024)  # topics, prefixes and questions come many times
def normalise(text: str) -> str:
    """Return the text in NFC, without control characters, whitespace collapsed; the joiners ZWJ and ZWNJ stay."""
    text = _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    lines = (" ".join(line.split()) for line in unicodedata.normalize("NFC", text).split("\n"))
    return str(_BLANK_LINES.sub("\n\n", "\n".join(lines))).strip()


def replace_personal_data(text: str) -> tuple[str, Counter[str]]:
    """Return the text with addresses, phone numbers and long numbers as placeholders, and the count of each."""
    found: Counter[str] = Counter()
    placeholders = _table()["placeholders"]
    for kind, pattern in _PERSONAL.items():
        text, found[kind] = pattern.subn(placeholders[kind], text)
    return text, found


def add_reflective_prefixes(rows: Sequence[Row], seed: int) -> tuple[list[Row], int]:
    """Return the rows with a sentence that mirrors the feeling before each answer, and how many answers got one.

    The sentence is drawn by topic; an answer that already reflects is left alone. For training targets only: a
    reference must stay what its author wrote.
    """
    rng = random.Random(seed)
    prefixed = [_with_prefix(row, rng) for row in rows]
    return prefixed, sum(new != old for new, old in zip(prefixed, rows, strict=True))


def _with_prefix(row: Row, rng: random.Random) -> Row:
    choices = _prefixes_for(row.topic)
    prefix = choices[rng.randrange(len(choices))]
    return row if reflects(row.answer) else replace(row, answer=f"{normalise(prefix)} {row.answer}")


def reflects(answer: str) -> bool:
    """Return whether the answer's first sentence already mirrors the other's feeling."""
    return _pattern("reflecting").search(_FIRST_SENTENCE.match(answer)[0]) is not None


def _prefixes_for(topic: str) -> list[str]:
    topic = normalise(topic).casefold()
    for entry in _table()["prefixes"]:
        if any(word in topic for word in entry["topic_words"]):
            return entry["sentences"]
    return _table()["general_prefixes"]


def _normalise_row(row: Row) -> Row:
    return Row(normalise(row.topic), normalise(row.title), normalise(row.question), normalise(row.answer))


def _replace_personal_data(row: Row) -> tuple[Row, Counter[str]]:
    title, in_title = replace_personal_data(row.title)
    question, in_question = replace_personal_data(row.question)
    answer, in_answer = replace_personal_data(row.answer)
    return Row(row.topic, title, question, answer), in_title + in_question + in_answer


def asks_in_crisis(question: str, phrases: Iterable[str] = ()) -> bool:
    """Return whether a normalised question speaks of suicide or self-harm, or holds one of the (plain) phrases."""
    patterns = [_pattern("crisis"), _pattern("self_harm_method")]
    escaped = [regex.escape(phrase, special_only=True) for phrase in phrases]
    if escaped:
        patterns.append(_any_of(escaped))
    text = _as_read(question)
    return any(pattern.search(text) for pattern in patterns)


def _as_read(text: str) -> str:
    """Return the text as somebody reads it: without mark-up, joiners and line ends, which no pattern has to know."""
    text = _JOINERS.sub("", _TAG.sub("", html.unescape(text))).replace("\u2019", "'")
    return " ".join(text.split())


def _drop_reason(row: Row, answer_as_read: str) -> str | None:
    if _pattern("self_harm_method").search(answer_as_read):
        return "self_harm_method"
    if _pattern("medication_dosage").search(row.answer):
        return "medication_dosage"
    if not row.question or not row.answer:
        return "blank"
    return None


@functools.cache
def _table() -> dict[str, Any]:
    return read_toml(Path(__file__).with_name("clean.toml"))


@functools.cache
def _pattern(name: str) -> regex.Pattern[str]:
    """Return a list of clean.toml as one pattern."""
    return _any_of(_table()[name])


def _any_of(phrases: Iterable[str]) -> regex.Pattern[str]:
    """Compile phrases that begin where a word begins; their end is open, as Bengali endings follow the stem.

    In NFC, as the texts are: it takes the letters with a dot below apart, so a pattern left as typed never matches.
    """
    alternatives = unicodedata.normalize("NFC", "|".join(phrases)).replace(_CHANDRABINDU, f"{_CHANDRABINDU}?")
    return regex.compile(rf"(?<![{WORD_CHARS}])(?:{alternatives})", regex.IGNORECASE)


_CHANDRABINDU = "\u0981"
"""The nasal sign, which many leave out when they type."""

_TAG = regex.compile(r"</?[A-Za-z][^<>]*>")
_JOINERS = regex.compile("[\u200c\u200d]")
_CONTROL = regex.compile(r"[[\p{Cc}\p{Cf}]--[\s\u200c\u200d]]", regex.V1)
_BLANK_LINES = regex.compile(r"\n{3,}")
_FIRST_SENTENCE = regex.compile(r"[^।?!\n]*")

_PERSONAL = {
    "url": regex.compile(r"(?:https?://|www\.)[!#-&(-;=?-~]*[A-Za-z0-9/#=_&%-]", regex.IGNORECASE),
    "email": regex.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}"),
    "phone": regex.compile(
        rf"(?<![{WORD_CHARS}+])(?:\+\p{{Nd}}{{1,3}}[ -]?|[0০])(?:[ -]?\p{{Nd}}){{8,12}}(?!\p{{Nd}})"
    ),
    "number": regex.compile(r"(?<!\p{Nd})(?:\p{Nd}{9,}|(?:\p{Nd}{4}[ -]){3}\p{Nd}{4})(?!\p{Nd})"),
}
"""Kind -> pattern, in this order: an address may hold digits. `\\p{Nd}` takes Bengali digits in."""
