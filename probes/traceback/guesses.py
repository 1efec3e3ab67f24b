"""What a request may be the size of where nobody says which model ran: known models of the family in the frames."""

from __future__ import annotations

from collections.abc import Iterator
from math import isqrt

from memory_harness.configs.models import ModelShape, load_models

MIN_VOCABULARY = 8192
"""Smaller ones are of the tiny models that tests run."""
TOKENS = range(16, 2**20)
"""Tokens of a batch for which a size is worth a guess."""


def guesses(place: str, family: str, requested_bytes: int) -> tuple[str, ...]:
    """Return in words how many tokens the request is of, by the place where it failed; nothing for other places."""
    known: dict[str, None] = {}
    for shape in load_models().values():
        is_known = shape.values["model_type"] == family and shape.vocab_size >= MIN_VOCABULARY
        if is_known and place in ("loss", "output-head"):
            known.update(dict.fromkeys(_logits(shape, requested_bytes)))
        elif is_known and place == "eager-attention":
            known.update(dict.fromkeys(_scores(shape, requested_bytes)))
    return tuple(known)


def _logits(shape: ModelShape, requested_bytes: int) -> Iterator[str]:
    tokens = round(requested_bytes / (4 * shape.vocab_size))
    if tokens in TOKENS:
        yield f"logits of {shape.vocab_size} words: about {tokens} tokens in float32, {2 * tokens} in 16 bits"


def _scores(shape: ModelShape, requested_bytes: int) -> Iterator[str]:
    heads = shape.values["num_attention_heads"]
    wide, narrow = (isqrt(requested_bytes // (heads * size)) for size in (4, 2))
    if wide in TOKENS:
        yield f"scores of {heads} heads, one sequence: about {wide} tokens in float32, {narrow} in 16 bits"
