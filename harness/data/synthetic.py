"""A made-up Bengali corpus with the real one's columns, lengths, repeated questions and dirt.

It stands in for the real corpus where only lengths matter; it is called synthetic wherever it is named.
"""

from __future__ import annotations

import functools
import math
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from random import Random
from string import Formatter
from typing import Any

from memory_harness.configs.tables import read_toml
from memory_harness.harness.data.corpus import MAX_FIELD_CHARS, Corpus, Row, select_rows
from memory_harness.harness.data.tokenizer import TOKENS_PER_BYTE

NAME = "synthetic"

NUM_ROWS = 38_210
"""Usable rows of the real corpus."""

LONG_SHARE = 0.055
"""Share of counselling rows, which come first; the others are short turns of a chat."""


@dataclass(frozen=True)
class LengthDistribution:
    """Log-normal lengths in tokens, clipped."""

    median: float
    sigma: float
    shortest: int
    longest: int

    def draw(self, rng: Random) -> int:
        """Return a length in tokens."""
        length = self.median * math.exp(rng.gauss(0, self.sigma))
        return min(max(round(length), self.shortest), self.longest)


QUESTION_LENGTHS = {"long": LengthDistribution(265, 0.74, 8, 4000), "short": LengthDistribution(90, 0.58, 8, 4000)}
ANSWER_LENGTHS = {"long": LengthDistribution(1000, 0.66, 6, 7000), "short": LengthDistribution(62, 0.52, 6, 7000)}
"""Fitted to the real corpus under Llama 3's tokenizer."""

REPEATED_SHARE = {"long": 0.5, "short": 0.03}
"""Share of rows that answer the previous row's question once more; the shortest questions also repeat by chance."""

DIRT_SHARE = 0.0005
"""Rows of each kind of dirt per usable row, at least one; the real corpus has about 0.0006 unusable rows in all."""

_SHORTEST_SENTENCE_BYTES = 40
"""From here on there is a sentence for nearly every length."""


def synthetic_corpus(num_usable: int, seed: int) -> Corpus:
    """Return a synthetic corpus, read as a file would be: `num_usable` rows are left once it is cleaned, too."""
    return select_rows((row for row, _ in synthetic_rows(num_usable, seed)), NAME)


def synthetic_rows(num_usable: int, seed: int) -> list[tuple[Row, str]]:
    """Return `num_usable` usable rows, counselling first, and the dirty rows that are strewn among them, as in a file.

    Beside each stands its kind of dirt, if any: one of `corpus.DROPPED` that a parsed row can show, `clean.DROPPED`'s
    two unsafe ones, `crisis`, or `personal`, whose rows stay usable.
    """
    rng = Random(seed)
    rows = _usable_rows(num_usable, rng)
    num_dirty = max(1, round(DIRT_SHARE * num_usable))
    kinds = [""] * num_usable
    for i in sorted(rng.sample(range(num_usable), min(num_dirty, num_usable))):
        rows[i] = _with_personal_data(rows[i], rng)
        kinds[i] = "personal"
    placed = list(zip(map(float, range(num_usable)), rows, kinds, strict=True))
    for kind, columns in _dirty_columns().items():
        for _ in range(num_dirty):
            original = rng.randrange(num_usable)
            # Behind the original: of two equal rows, the first is kept.
            placed.append((rng.uniform(original, num_usable), replace(rows[original], **columns), kind))
    placed.sort(key=lambda entry: entry[0])
    return [(row, kind) for _, row, kind in placed]


def _dirty_columns() -> dict[str, dict[str, Any]]:
    """Return, for each kind of dirt, the columns that make a row so; a duplicate has the row's own."""
    columns: dict[str, dict[str, str]] = {**_table()["dirt"], "duplicate": {}}
    phrase = columns["oversized"]["answer"]
    columns["oversized"] = {"answer": phrase * (MAX_FIELD_CHARS // len(phrase) + 1)}
    return columns


@functools.cache
def _table() -> dict[str, Any]:
    return read_toml(Path(__file__).with_name("synthetic.toml"))


def _usable_rows(num_rows: int, rng: Random) -> list[Row]:
    topics = tuple(_table()["things"])
    questions = {topic: _sentences("questions", topic) for topic in topics}
    answers = {topic: _sentences("answers", topic) for topic in topics}
    num_long = round(LONG_SHARE * num_rows)
    rows: dict[Row, None] = {}
    previous: Row | None = None
    while len(rows) < num_rows:
        kind = "long" if len(rows) < num_long else "short"
        if previous is None or rng.random() >= REPEATED_SHARE[kind]:
            topic = topics[rng.randrange(len(topics))]
            question = questions[topic].text(QUESTION_LENGTHS[kind].draw(rng), rng)
            previous = Row(topic, " ".join(question.split()[:6]), question, "")
        answer = answers[previous.topic].text(ANSWER_LENGTHS[kind].draw(rng), rng)
        rows[replace(previous, answer=answer)] = None
    return list(rows)


@functools.cache
def _sentences(part: str, topic: str) -> _Sentences:
    return _Sentences(_table()[part], topic)


class _Sentences:
    """Sentences on one topic by length, to build texts of a given length from."""

    def __init__(self, templates: Sequence[str], topic: str) -> None:
        filled: set[str] = set()
        for template in templates:
            filled.update(_fill(template, topic))
        # ties by text: a set has no order of its own
        self.sentences = sorted(filled, key=lambda sentence: (_num_bytes(sentence), sentence))
        self.num_bytes = [_num_bytes(sentence) for sentence in self.sentences]

    def text(self, num_tokens: int, rng: Random) -> str:
        """Return whole sentences whose estimated length is as near to `num_tokens` as they allow, mostly within 1."""
        room = round(num_tokens / TOKENS_PER_BYTE)
        parts = []
        while room > 2 * _SHORTEST_SENTENCE_BYTES:  # two sentences wherever they fit: of pairs, few repeat
            longest = bisect_right(self.num_bytes, room - 1 - _SHORTEST_SENTENCE_BYTES)
            chosen = rng.randrange(longest)
            parts.append(self.sentences[chosen])
            room -= self.num_bytes[chosen] + 1
        parts.append(self._nearest(room, rng))
        return " ".join(parts)

    def _nearest(self, room: int, rng: Random) -> str:
        """Return a sentence drawn from those nearest in length."""
        at = min(bisect_left(self.num_bytes, room), len(self.num_bytes) - 1)
        if at and room - self.num_bytes[at - 1] < self.num_bytes[at] - room:
            at -= 1
        first, end = bisect_left(self.num_bytes, self.num_bytes[at]), bisect_right(self.num_bytes, self.num_bytes[at])
        return self.sentences[rng.randrange(first, end)]


def _fill(template: str, topic: str) -> Iterator[str]:
    """Yield the template with every choice of its words, in NFC."""
    things = _table()["things"][topic]
    words = _table()["words"] | {"thing": things, "thing_of": list(map(_genitive, things))}
    names = [name for _, name, _, _ in Formatter().parse(template) if name]
    for choice in product(*map(words.__getitem__, names)):
        yield unicodedata.normalize("NFC", template.format(**dict(zip(names, choice, strict=True))))


def _genitive(noun: str) -> str:
    """Return the noun with the ending "of": -র after a vowel, -ের after a consonant."""
    ending = "র" if noun[-1] in _table()["vowels"] else "ের"
    return noun + ending


def _num_bytes(text: str) -> int:
    return len(text.encode())


def _with_personal_data(row: Row, rng: Random) -> Row:
    digits = "".join(rng.choice(_table()["digits"]) for _ in range(8))
    user, page = rng.randrange(1000), rng.randrange(1000)
    sentence = rng.choice(_table()["personal_data"]).format(digits=digits, user=user, page=page)
    return replace(row, answer=unicodedata.normalize("NFC", f"{row.answer} {sentence}"))
