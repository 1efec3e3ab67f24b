"""A made-up Bengali corpus with the real one's columns, lengths, repeated questions and dirt.

It stands in for the real corpus where only lengths matter; it is called synthetic wherever it is named.
"""

from __future__ import annotations

import csv
import math
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, replace
from itertools import product
from pathlib import Path
from random import Random
from string import Formatter

from memory_harness.harness.data.corpus import COLUMNS, MAX_FIELD_CHARS, Corpus, Row, select_rows
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


@dataclass(frozen=True)
class SyntheticTable:
    """The rows as a file would hold them, dirt included, and the row numbers, from 0, of each kind of dirt.

    The kinds are those of `corpus.DROPPED` that a parsed row can show, `clean.DROPPED`'s two unsafe ones, `crisis`, and
    `personal`, whose rows stay usable.
    """

    rows: tuple[Row, ...]
    dirt: dict[str, tuple[int, ...]]


def synthetic_corpus(num_usable: int, seed: int) -> Corpus:
    """Return a synthetic corpus, read as a file would be: `num_usable` rows are left once it is cleaned, too."""
    return select_rows(synthetic_table(num_usable, seed).rows, NAME)


def synthetic_table(num_usable: int, seed: int) -> SyntheticTable:
    """Return `num_usable` usable rows, counselling first, and the dirty rows that are strewn among them."""
    rng = Random(seed)
    rows = _usable_rows(num_usable, rng)
    num_dirty = max(1, round(DIRT_SHARE * num_usable))
    personal = set(rng.sample(range(num_usable), min(num_dirty, num_usable)))
    rows = [_with_personal_data(row, rng) if i in personal else row for i, row in enumerate(rows)]
    placed = [(float(i), row, "personal" if i in personal else "") for i, row in enumerate(rows)]
    for kind in (*_DIRTY, "duplicate"):
        for _ in range(num_dirty):
            original = rng.randrange(num_usable)
            row = rows[original] if kind == "duplicate" else replace(rows[original], **_DIRTY[kind])
            # Behind the original: of two equal rows, the first is kept.
            placed.append((rng.uniform(original, num_usable), row, kind))
    placed.sort(key=lambda entry: entry[0])
    kinds = [kind for _, _, kind in placed]
    dirt = {kind: tuple(i for i, k in enumerate(kinds) if k == kind) for kind in (*_DIRTY, "duplicate", "personal")}
    return SyntheticTable(tuple(row for _, row, _ in placed), dirt)


def write_csv(rows: Iterable[Row], path: Path) -> None:
    """Write rows as a CSV that `read_corpus` reads."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(astuple(row) for row in rows)


def _usable_rows(num_rows: int, rng: Random) -> list[Row]:
    pools = {topic: (_Sentences(_ASKING, topic), _Sentences(_ANSWERING, topic)) for topic in _THINGS}
    topics = tuple(_THINGS)
    num_long = round(LONG_SHARE * num_rows)
    rows: dict[Row, None] = {}
    previous: Row | None = None
    while len(rows) < num_rows:
        kind = "long" if len(rows) < num_long else "short"
        if previous is None or rng.random() >= REPEATED_SHARE[kind]:
            topic = topics[rng.randrange(len(topics))]
            question = pools[topic][0].text(QUESTION_LENGTHS[kind].draw(rng), rng)
            previous = Row(topic, _title(question), question, "")
        answer = pools[previous.topic][1].text(ANSWER_LENGTHS[kind].draw(rng), rng)
        rows[replace(previous, answer=answer)] = None
    return list(rows)


def _title(question: str) -> str:
    return " ".join(question.split()[:6])


class _Sentences:
    """Sentences on one topic by length, to build texts of a given length from."""

    def __init__(self, templates: Sequence[str], topic: str) -> None:
        # ties by text: a set has no order of its own
        filled = sorted({s for t in templates for s in _fill(t, topic)}, key=lambda s: (_num_bytes(s), s))
        self.sentences = filled
        self.num_bytes = [_num_bytes(s) for s in filled]

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


def _fill(template: str, topic: str) -> Iterable[str]:
    """Return the template with every choice of its words, in NFC."""
    things = _THINGS[topic]
    words = _WORDS | {"thing": things, "thing_of": tuple(map(_genitive, things))}
    names = [name for _, name, _, _ in Formatter().parse(template) if name]
    for choice in product(*(words[name] for name in names)):
        yield unicodedata.normalize("NFC", template.format(**dict(zip(names, choice, strict=True))))


def _genitive(noun: str) -> str:
    """Return the noun with the ending "of": -র after a vowel, -ের after a consonant."""
    return noun + ("র" if noun[-1] in _VOWELS else "ের")


def _num_bytes(text: str) -> int:
    return len(text.encode())


def _with_personal_data(row: Row, rng: Random) -> Row:
    digits = "".join(rng.choice("০১২৩৪৫৬৭৮৯") for _ in range(8))
    contacts = (
        f"আমার নম্বর ০১৭{digits}।",
        f"আমাকে someone{rng.randrange(1000)}@example.com ঠিকানায় লিখুন।",
        f"লেখাটি https://example.org/{rng.randrange(1000)} পাতায় আছে।",
    )
    return replace(row, answer=unicodedata.normalize("NFC", f"{row.answer} {rng.choice(contacts)}"))


_DIRTY: dict[str, dict[str, str]] = {
    "blank": {"answer": "  "},
    "missing": {"question": "NaN"},
    "oversized": {"answer": "আচ্ছা। " * (MAX_FIELD_CHARS // 7 + 1)},
    "undecodable": {"question": "আমার মন ভা\ufffdো নেই।"},
    "crisis": {"question": "আমি আর বেঁচে থাকতে চাই না।"},
    "self_harm_method": {"answer": "সে বিষ খেয়ে সব ভুলতে চেয়েছিল।"},
    "medication_dosage": {"answer": "রাতে ৫০ মিলিগ্রাম ওষুধ খেয়ে ঘুমান।"},
}
"""Kind of dirt -> the columns that make a row so."""

_VOWELS = "অআইঈউঊঋএঐওঔািীুূৃেৈোৌ"

_THINGS = {
    "পরিবার": ("পরিবার", "সংসার", "সন্তান", "বাবার অসুখ", "ঘরের অশান্তি"),
    "কাজ": ("চাকরি", "অফিস", "কাজের চাপ", "বেতন", "নতুন দায়িত্ব"),
    "পড়াশোনা": ("পরীক্ষা", "পড়াশোনা", "ভর্তি", "ফলাফল", "র‍্যাগিং"),
    "সম্পর্ক": ("সম্পর্ক", "বিয়ে", "বিচ্ছেদ", "ভুল বোঝাবুঝি", "পুরোনো স্মৃতি"),
    "বন্ধুত্ব": ("বন্ধুত্ব", "ঝগড়া", "পুরোনো বন্ধু", "অভিমান"),
    "উদ্বেগ": ("ভবিষ্যৎ জীবন", "টাকাপয়সা", "দুশ্চিন্তা", "স্বাস্থ্য"),
    "একাকীত্ব": ("একাকীত্ব", "নতুন শহর", "নীরবতা", "দূরের জীবন"),
    "শোক": ("দাদির মৃত্যু", "হারানো মানুষ", "শেষ দিনগুলো", "স্মৃতি"),
}
"""Topic -> what is on people's minds."""

_WORDS: dict[str, tuple[str, ...]] = {
    "when": ("আজকাল", "প্রায়ই", "কয়েক দিন ধরে", "সারা দিন", "অনেক মাস ধরে", "রাতে"),
    "often": ("প্রতিদিন", "সকালে", "বিকেলে", "সপ্তাহে একদিন", "ঘুমের আগে"),
    "person": ("মা", "বাবা", "বড় ভাই", "শিক্ষক", "দাদি", "সহকর্মীরা"),
    "person_of": ("মায়ের", "বাবার", "বন্ধুর", "ভাইয়ের", "বোনের", "একজন পরামর্শকের"),
    "feeling": ("ভয়", "একা", "খারাপ", "ক্লান্ত", "অসহায়", "অস্থির"),
    "much": ("খুব", "বেশ", "ভীষণ", "একটু"),
}

_ASKING = (
    "কী করব?",
    "কেন এমন হয়?",
    "আমার কী করা উচিত?",
    "আর পারছি না।",
    "মন ভালো নেই।",
    "কেউ আমাকে বোঝে না।",
    "আমি কি ভুল করছি?",
    "এখন আমি কার কাছে যাব?",
    "{thing} নিয়ে কী করব?",
    "আমার {much} {feeling} লাগে।",
    "{when} আমার {feeling} লাগে।",
    "{when} আমার {much} {feeling} লাগে।",
    "{thing} নিয়ে {when} {much} চিন্তা হয়।",
    "{thing_of} কথা ভেবে রাতে ঘুম আসে না।",
    "{thing_of} কথা ভাবলেই আমার {much} {feeling} লাগে।",
    "আমার {person} {thing} নিয়ে আমার কথা শুনতে চান না।",
    "{when} {person_of} সঙ্গে মন খুলে কথা বলতে পারি না।",
    "{thing} নিয়ে আমি কী করব, কিছুতেই বুঝতে পারছি না।",
    "{thing_of} কারণে {when} কোনো কাজে মন বসাতে পারি না, {much} {feeling} লাগে।",
)

_ANSWERING = (
    "আচ্ছা।",
    "ঠিক আছে।",
    "পাশে আছি।",
    "ধৈর্য ধরুন।",
    "হ্যাঁ, বুঝেছি।",
    "আমি শুনছি, বলুন।",
    "চিন্তা করবেন না।",
    "সব ঠিক হয়ে যাবে।",
    "{often} লিখে রাখুন।",
    "{often} একটু ঘুমান।",
    "{often} বিশ্রাম নিন।",
    "{often} {much} ভালো থাকবেন।",
    "কেন {feeling} লাগে, ভেবে দেখুন।",
    "{much} {feeling} লাগলে একটু থামুন।",
    "মন খারাপ করবেন না।",
    "নিজেকে একটু সময় দিন।",
    "আপনি একা নন, আমি পাশে আছি।",
    "{often} কিছুক্ষণ হাঁটুন।",
    "{often} গভীর শ্বাস নিন।",
    "এমন সময়ে {feeling} লাগা স্বাভাবিক।",
    "{often} {person_of} সঙ্গে কথা বলুন।",
    "{thing} নিয়ে {feeling} লাগা খুব স্বাভাবিক।",
    "{often} নিজের জন্য একটু সময় রাখুন।",
    "{thing} নিয়ে যা ভাবছেন, তা {often} লিখে রাখুন।",
    "{thing_of} চিন্তা থেকে {often} একটু দূরে থাকুন।",
    "{person_of} কাছে {thing_of} কথা খুলে বলুন।",
    "{often} {person_of} সঙ্গে একটু সময় কাটান।",
    "এত {feeling} লাগলে {person_of} কাছে যান, একা থাকবেন না।",
    "{thing_of} কথা ভেবে এত কষ্ট পাবেন না।",
    "আপনার কথা শুনে বুঝতে পারছি, {thing} নিয়ে আপনি কষ্টে আছেন।",
    "{thing} নিয়ে {person_of} সঙ্গে {often} খোলা মনে কথা বলতে পারেন।",
    "{often} নিজের ভালো লাগার কোনো কাজ করুন, মন {much} হালকা হবে।",
    "{thing} সহজ নয়, তাই নিজেকে দোষ না দিয়ে ধীরে ধীরে এগিয়ে যান।",
    "প্রয়োজন হলে {person_of} সাহায্য নিন, {thing_of} ভার একা বইতে হবে না।",
)
