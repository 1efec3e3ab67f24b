"""What generated replies and a held-out loss are worth: BLEU, chrF, ROUGE, perplexity, bits per byte; without torch."""

import math
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from itertools import zip_longest
from typing import Any

# here and not where they are used: that a package is missing has to show before a training run, not after it
import regex
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF

from memory_harness.harness.data.clean import WORD_CHARS, normalise

ROUGE_TYPES = ("rouge1", "rouge2", "rougeL")

MAX_LOSS = math.log(sys.float_info.max)

_WORD = regex.compile(f"[{WORD_CHARS}]+")
_JOINERS = regex.compile("[\u200c\u200d]")
_KHANDA_TA = regex.compile("\u09a4\u09cd\u200d")
_DANDAS = regex.compile("[|\u0965\u09f7]")
_DIGITS = {ord("০") + digit: str(digit) for digit in range(10)}


@dataclass(frozen=True)
class TextScores:
    """How near replies are to their references; BLEU and chrF from 0 to 100, ROUGE (mean F-measure) from 0 to 1."""

    num_replies: int
    bleu: float | None = None
    """this and all below: None without replies"""
    chrf: float | None = None
    rouge1: float | None = None
    rouge2: float | None = None
    rougeL: float | None = None
    signatures: dict[str, str] = field(default_factory=dict)
    """metric -> how it was computed, as sacreBLEU writes it"""


def comparable(text: str) -> str:
    """Return the text with all that looks or reads alike written alike; both sides of a comparison go through it.

    NFC (which takes the letters with a dot below apart, however they were typed), control characters, whitespace,
    khanda ta as one letter, no joiners, every danda as the single one, Bengali digits as ASCII ones.
    """
    text = _KHANDA_TA.sub("\u09ce", unicodedata.normalize("NFC", text))
    text = _DANDAS.sub("\u0964", _JOINERS.sub("", text)).translate(_DIGITS)
    return " ".join(normalise(text).split())


def words(text: str) -> list[str]:
    """Return the text's words; vowel signs and joiners belong to them."""
    return list(_WORD.findall(text.lower()))


class _Words:
    """What rouge_score asks of a tokenizer; its own drops every letter that is not Latin."""

    def tokenize(self, text: str) -> list[str]:
        """Return the words."""
        return words(text)


def score_texts(replies: Sequence[str], references: Sequence[Sequence[str]]) -> TextScores:
    """Score each reply against its references, of which it may have several; one without any is left out.

    ROUGE takes the nearest reference. sacreBLEU takes the n-grams that there are: texts of under four words have no
    4-grams, and would score 0 even against themselves.
    """
    pairs = []
    for reply, texts in zip(replies, references, strict=True):
        if texts:
            pairs.append((comparable(reply), [comparable(text) for text in texts]))
    if not pairs:
        return TextScores(0)
    bleu, chrf, signatures = _sacrebleu(pairs)
    signatures["rouge"] = f"rouge_score:{metadata.version('rouge_score')}|tok:[{WORD_CHARS}]+|stem:no|refs:nearest"
    rouge1, rouge2, rouge_l = _rouge(pairs)
    return TextScores(len(pairs), bleu, chrf, rouge1, rouge2, rouge_l, signatures)


def _sacrebleu(pairs: Sequence[tuple[str, list[str]]]) -> tuple[float, float, dict[str, str]]:
    hypotheses, references = zip(*pairs, strict=True)
    # one stream for each reference; None, which sacreBLEU's types leave out, where a reply has fewer
    streams: list[Any] = list(zip_longest(*references))
    bleu, chrf = BLEU(tokenize="intl", effective_order=True), CHRF()
    bleu_score, chrf_score = bleu.corpus_score(hypotheses, streams), chrf.corpus_score(hypotheses, streams)
    signatures = {"bleu": str(bleu.get_signature()), "chrf": str(chrf.get_signature())}
    return bleu_score.score, chrf_score.score, signatures


def _rouge(pairs: Sequence[tuple[str, list[str]]]) -> list[float]:
    scorer = RougeScorer(list(ROUGE_TYPES), tokenizer=_Words())
    rows = [_rouge_of(scorer, reply, texts) for reply, texts in pairs]
    return [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]


def _rouge_of(scorer: Any, reply: str, texts: list[str]) -> list[float]:
    if words(reply) and any(words(reply) == words(text) for text in texts):
        return [1.0] * len(ROUGE_TYPES)  # also where a single word leaves no pairs of words to compare
    scores = scorer.score_multi(texts, reply)
    return [float(scores[name].fmeasure) for name in ROUGE_TYPES]


def perplexity(loss: float | None) -> float | None:
    """Return the perplexity of a loss in nats per token; None where it is more than a float, and so JSON, can hold."""
    if loss is None or loss > MAX_LOSS:
        return None
    return math.exp(loss)


def bits_per_byte(loss: float | None, num_tokens: int, num_bytes: int | None) -> float | None:
    """Return the bits that the model spends on a byte of the text.

    Unlike perplexity it does not depend on how many tokens a tokenizer makes of it.

    Args:
        loss: in nats per token.
        num_tokens: that the loss is over, those that end an answer included.
        num_bytes: of the same text in UTF-8.
    """
    if loss is None or not num_bytes:
        return None
    return loss * num_tokens / math.log(2) / num_bytes
