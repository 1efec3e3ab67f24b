"""Cleaning: unsafe rows are taken out whole, personal data becomes placeholders, text is normalised.

Nothing is ever cut out of a sentence: half a sentence of advice can say the opposite of the whole.
"""

from __future__ import annotations

import html
import random
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import regex

from memory_harness.harness.data.corpus import Corpus, Row

WORD_CHARS = r"\p{L}\p{M}\p{N}\u200c\u200d"
"""Characters of a word. Python's own `\\w` and `\\b` break Bengali words at every vowel sign and joiner."""

DROPPED = {
    "self_harm_method": "naming a method of self-harm",
    "medication_dosage": "giving a dose of medicine",
    "blank": "blank once cleaned",
    "duplicate": "duplicates once cleaned",
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

    def line(self) -> str:
        """Return the report as one line, reasons that did not occur left out."""
        parts = [f"{self.num_rows} rows cleaned: {self.num_kept} kept"]
        if self.crisis:
            parts.append(f"{len(self.crisis)} set aside for vetted replies")
        parts += [f"{self.dropped[reason]} {title}" for reason, title in DROPPED.items() if self.dropped[reason]]
        if replaced := [f"{count} {kind}" for kind, count in self.placeholders.items() if count]:
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
        normalised = _normalise_row(original)
        row, found = _replace_personal_data(normalised)
        if _is_crisis(row):
            crisis.append(row)
        elif reason := _why_dropped(row) or ("duplicate" if row in kept else None):
            dropped[reason] += 1
        else:
            kept[row] = None
            placeholders += found
            num_normalised += normalised != original
    counts = {reason: dropped[reason] for reason in DROPPED}
    kinds = {kind: placeholders[kind] for kind in _PERSONAL}
    report = CleanReport(len(corpus.rows), len(kept), tuple(crisis), counts, kinds, num_normalised)
    return replace(corpus, rows=tuple(kept)), report


def normalise(text: str) -> str:
    """Return the text in NFC, without control characters, whitespace collapsed; the joiners ZWJ and ZWNJ stay."""
    text = _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    lines = (" ".join(line.split()) for line in unicodedata.normalize("NFC", text).split("\n"))
    return str(_BLANK_LINES.sub("\n\n", "\n".join(lines))).strip()


def replace_personal_data(text: str) -> tuple[str, Counter[str]]:
    """Return the text with addresses, phone numbers and long numbers as placeholders, and the count of each."""
    found: Counter[str] = Counter()
    for kind, (pattern, placeholder) in _PERSONAL.items():
        text, found[kind] = pattern.subn(placeholder, text)
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
    return _REFLECTS.search(_FIRST_SENTENCE.match(answer)[0]) is not None


def _prefixes_for(topic: str) -> tuple[str, ...]:
    topic = normalise(topic).casefold()
    return next((p for words, p in _PREFIXES.items() if any(word in topic for word in words)), _GENERAL_PREFIXES)


def _normalise_row(row: Row) -> Row:
    return Row(normalise(row.topic), normalise(row.title), normalise(row.question), normalise(row.answer))


def _replace_personal_data(row: Row) -> tuple[Row, Counter[str]]:
    title, in_title = replace_personal_data(row.title)
    question, in_question = replace_personal_data(row.question)
    answer, in_answer = replace_personal_data(row.answer)
    return Row(row.topic, title, question, answer), in_title + in_question + in_answer


def _is_crisis(row: Row) -> bool:
    return asks_in_crisis(row.question) or _CRISIS.search(_as_read(row.answer)) is not None


def asks_in_crisis(question: str, phrases: Iterable[str] = ()) -> bool:
    """Return whether a normalised question speaks of suicide or self-harm, or holds one of the (plain) phrases."""
    patterns = [_CRISIS, _METHOD]
    if phrases := [regex.escape(phrase, special_only=True) for phrase in phrases]:
        patterns.append(_any_of(phrases))
    text = _as_read(question)
    return any(pattern.search(text) for pattern in patterns)


def _as_read(text: str) -> str:
    """Return the text as somebody reads it: without mark-up, joiners and line ends, which no pattern has to know."""
    text = _JOINERS.sub("", _TAG.sub("", html.unescape(text))).replace("\u2019", "'")
    return " ".join(text.split())


def _why_dropped(row: Row) -> str | None:
    if _METHOD.search(_as_read(row.answer)):
        return "self_harm_method"
    if _DOSAGE.search(row.answer):
        return "medication_dosage"
    return None if row.question and row.answer else "blank"


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

_NO_WISH = r"ইচ্ছ[াে] (?:(?:কর|হ)\S* ?না|নেই|নাই)|মন চা\S* ?না"
"""After "to live"; without its negation it is the opposite."""

_SOMEWHERE = "(?:with|in|at|near|like|here|there|alone|apart|together|under|on|by|off|next|far)"
"""After "live": where or with whom, which is no crisis."""

_CRISIS = _any_of((
    "আত্[মন] ?হত্যা", "আত্মহনন", "আত্মঘাতী", "সুইসাইড",
    "মর(?:ে যে)?তে (?:চাই|ইচ্ছ[াে]|মন চা)", "মারা যেতে (?:চাই|ইচ্ছ[াে])",
    "মৃত্যু (?:চাই|কামনা)", "মরে গেলে(?:ই)? (?:ভাল|বাঁচ|শান্তি|মুক্তি|সব শেষ)", "মরে যাওয়া(?:ই|টাই)? ভাল", "আমি মরে যাব",
    rf"(?:বেঁচে থাক|বাঁচ)তে (?:চাই ?না|{_NO_WISH})",
    r"(?:বেঁচে থাক|বাঁচ)ার (?:আর )?(?:কোনো? )?(?:ইচ্ছ[াে]|মানে|অর্থ|কারণ|আগ্রহ)\p{M}* (?:নেই|নাই|হয় না|\S*পাই না)",
    "বেঁচে থেকে (?:আর )?(?:(?:কী|কি|কোনো?) )?(?:লাভ|হবে)", "পৃথিবীতে (?:আর )?থাকতে চাই ?না", "চিরতরে ঘুমি", "চিরনিদ্রা",
    "নিজেকে (?:শেষ কর|মেরে ফেল|কাট(?:ি|ছি|তে))", "জীবন(?:টা)? শেষ কর", "নিজের জীবন (?:নিয়ে নেব|নিতে চাই|দিয়ে দেব)",
    "নিজেকে (?:আঘাত|জখম|ক্ষতবিক্ষত) কর", "নিজের ক্ষতি কর", "(?:ব্লেড|ছুরি|চাকু) দিয়ে (?:নিজের )?(?:হাত|শরীর|কব্জি) ক[াে]ট",
    r"su[i1]cid\p{L}*", r"(?:kill|unaliv)(?:e|ing)? my ?self",
    r"(?:end|tak)(?:e|ing)? my own life", r"end(?:ing)? my life(?!\p{L})",
    r"(?:(?:want|wish)(?:ed)? to|wanna) (?:die|be dead)(?!\p{L})", r"wish i (?:was|were) (?:dead|never born)",
    rf"(?:do not|don'?t|no longer|never) (?:want to|wanna) (?:live(?! {_SOMEWHERE})(?!\p{{L}})|be alive|exist|wake up)",
    "better off (?:dead|without me)", "end(?:ing)? it all",
    "nothing (?:left )?to live for", "no (?:reason|point)(?: in)? (?:to live|living)",
    "self[- ]?harm", r"(?:hurt|harm|cut)(?:t?ing)? my ?self", r"(?:cut|slit)(?:ting)? my (?:wrists?|veins?)",
    r"m[ao]r(?:e je)?te (?:chai|chay|ich?ch[ae]|mon chay?)", r"at[mt]{1,2}[ao] ?h[ao]t+[yj]?[ao]",
    "nijeke (?:s?h?esh kor|mere fel)",
    r"b[ae]n?ch(?:te|e thakte) (?:chai|chay|ich?ch[ae])\p{L}*(?: \p{L}+)? ?na(?!\p{L})",
))  # fmt: skip
"""Said of suicide or self-harm, by whoever asks or answers."""

_METHOD = _any_of((
    "গলায় (?:দড়ি|ফাঁস)", "ফাঁস (?:দি|লাগা|নি)", "ফাঁসিতে ঝুল", "ফাঁসি (?:দি|নি)য়ে মর",
    "বিষ (?:খা|খে|পান)", "কীটনাশক খ[াে]",
    "ঘুমের (?:ওষুধ|বড়ি) (?:একসঙ্গে|একসাথে|অনেক|খেয়ে মর)", r"অনেক(?:গুলো|গুলি)? ঘুমের (?:ওষুধ|বড়ি)",
    "(?:রগ|শিরা) (?:কাট|কেটে)", "ছাদ থেকে (?:লাফ|ঝাঁপ)",
    "ট্রেনের (?:নিচে|নীচে|সামনে) (?:লাফ|ঝাঁপ)",
    "hang(?:ing|ed)? (?:your|my|him|her|one)self", "slit(?:ting)? (?:your|my|his|her|the) wrists?", "overdos(?:e|ing)",
    "drink(?:ing)? poison", "jump(?:ing|ed)? off (?:a|the) (?:bridge|roof|building)",
))  # fmt: skip
"""A way of doing it: in an answer the row is dropped, in a question it is a crisis."""

_DOSAGE = _any_of((
    r"\p{Nd}+(?:[.,]\p{Nd}+)?\s*-?\s*(?:মি\.?\s?গ্রা|মিলিগ্রাম|এমজি|মাইক্রোগ্রাম|(?:mg|mcg)(?![a-z]))",
    r"(?:\p{Nd}+|একটি|একটা|দুটি|দুটো|দুইটি|তিনটি|তিনটে|চারটি) ?(?:করে )?(?:ট্যাবলেট|ক্যাপসুল|বড়ি)",
    r"\p{Nd}+ ?(?:tablets?|pills?|capsules?)(?![a-z])",
))  # fmt: skip
"""An amount of medicine. To be told to see a doctor, or to take one's medicine, is no dose."""

_PERSONAL = {
    "url": (regex.compile(r"(?:https?://|www\.)[!#-&(-;=?-~]*[A-Za-z0-9/#=_&%-]", regex.IGNORECASE), "[লিংক]"),
    "email": (regex.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}"), "[ইমেইল]"),
    "phone": (
        regex.compile(rf"(?<![{WORD_CHARS}+])(?:\+\p{{Nd}}{{1,3}}[ -]?|[0০])(?:[ -]?\p{{Nd}}){{8,12}}(?!\p{{Nd}})"),
        "[ফোন]",
    ),
    "number": (regex.compile(r"(?<!\p{Nd})(?:\p{Nd}{9,}|(?:\p{Nd}{4}[ -]){3}\p{Nd}{4})(?!\p{Nd})"), "[নম্বর]"),
}
"""Kind -> pattern and placeholder, in this order: an address may hold digits. `\\p{Nd}` takes Bengali digits in."""

_REFLECTS = _any_of((
    "মনে হচ্ছে", "বুঝতে পার[িছ]", "আমি বুঝি", "কথা শুনে", "শুনে (?:খারাপ|কষ্ট|দুঃখ|খুব)",
    "sounds like", "i (?:can )?(?:understand|hear|see) ", "i(?:'|’)m (?:so |very )?sorry",
))  # fmt: skip

_GENERAL_PREFIXES = (
    "আপনার কথা শুনে বুঝতে পারছি, সময়টা সহজ যাচ্ছে না।",
    "মনে হচ্ছে, বিষয়টি আপনাকে অনেক ভাবাচ্ছে।",
    "আপনি যা অনুভব করছেন, তা আমি বুঝতে পারছি।",
)

_PREFIXES = {
    ("পরিবার", "দাম্পত্য", "বিবাহ", "সন্তান", "family", "marriage", "parent"): (
        "মনে হচ্ছে, পরিবারের এই পরিস্থিতি আপনাকে কষ্ট দিচ্ছে।",
        "বুঝতে পারছি, কাছের মানুষদের নিয়ে আপনি ভাবনায় আছেন।",
    ),
    ("কাজ", "চাকরি", "পেশা", "work", "career"): (
        "বুঝতে পারছি, কাজের চাপ আপনাকে ক্লান্ত করে তুলছে।",
        "মনে হচ্ছে, কাজের জায়গায় দিনগুলো সহজ যাচ্ছে না।",
    ),
    ("পড়াশোনা", "শিক্ষা", "পরীক্ষা", "study", "school"): (
        "বুঝতে পারছি, পড়াশোনা নিয়ে আপনি চাপে আছেন।",
        "মনে হচ্ছে, ফলাফলের কথা ভেবে আপনার চিন্তা হচ্ছে।",
    ),
    ("সম্পর্ক", "বন্ধু", "প্রেম", "relationship", "friend", "intimacy"): (
        "মনে হচ্ছে, এই সম্পর্ক আপনার কাছে খুব মূল্যবান।",
        "বুঝতে পারছি, প্রিয় মানুষের সঙ্গে দূরত্ব কতটা কষ্টের।",
    ),
    ("উদ্বেগ", "দুশ্চিন্তা", "চাপ", "ঘুম", "anxiety", "stress"): (
        "বুঝতে পারছি, এই দুশ্চিন্তা আপনাকে স্বস্তি দিচ্ছে না।",
        "মনে হচ্ছে, মনের ভেতর অনেক চাপ জমে আছে।",
    ),
    ("বিষণ্ণতা", "শোক", "একাকীত্ব", "depression", "grief", "loneliness"): (
        "মনে হচ্ছে, আপনি খুব কঠিন সময়ের মধ্য দিয়ে যাচ্ছেন।",
        "বুঝতে পারছি, এই কষ্ট একা বয়ে চলা সহজ নয়।",
    ),
}
"""Words of a topic, in Bengali or English -> sentences that suit it."""
