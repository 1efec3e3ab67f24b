"""Conversations as tokens: the masked prompt, the reply, truncation."""

from __future__ import annotations

from memory_harness.harness.data.batching import Example
from memory_harness.harness.data.chat_format import plain
from memory_harness.harness.data.tokenizer import Tokenizer, Turns

REPLY_SHARE = 4
"""A truncated sample keeps at least 1/4 of its tokens for the reply: a sample without targets teaches nothing."""


def build_example(
    tokenizer: Tokenizer, question: str, answer: str, max_length: int, turns: Turns = ()
) -> tuple[Example, bool]:
    """Return the sample in tokens, its prompt to be masked, and whether it was truncated.

    A text that answers nothing is a reply without a prompt.

    Too long a prompt loses the end of its question, so that the assistant's header still comes before the reply; too
    long a reply loses its end, and with it the end-of-turn token.
    """
    prompt = tokenizer.prompt(question, turns) if question or turns else ""
    reply = plain(answer, tokenizer.chat) + tokenizer.chat.end
    prompt_ids, reply_ids = tokenizer.encode(prompt), tokenizer.encode(reply)
    full_prompt = tokenizer.count(prompt) if prompt_ids is None else len(prompt_ids)
    full_reply = tokenizer.count(reply) if reply_ids is None else len(reply_ids)
    num_prompt = min(full_prompt, max_length - min(full_reply, max(1, max_length // REPLY_SHARE)))
    num_tokens = num_prompt + min(full_reply, max_length - num_prompt)
    ids = None
    if prompt_ids is not None and reply_ids is not None:
        ids = (*_shorten(prompt_ids, tokenizer, num_prompt), *reply_ids[: num_tokens - num_prompt])
    return Example(num_tokens, num_prompt, ids), full_prompt + full_reply > max_length


def build_prompt(
    tokenizer: Tokenizer, question: str, max_length: int, turns: Turns = ()
) -> tuple[int, tuple[int, ...] | None]:
    """Return the length in tokens and the ids (None where lengths are estimated) of a prompt to be answered."""
    prompt = tokenizer.prompt(question, turns)
    ids = tokenizer.encode(prompt)
    if ids is None:
        return min(tokenizer.count(prompt), max_length), None
    ids = _shorten(ids, tokenizer, max_length)
    return len(ids), tuple(ids)


def _shorten(prompt_ids: list[int], tokenizer: Tokenizer, room: int) -> list[int]:
    """Cut a prompt to `room` tokens: its start stays, and so does the template's tail."""
    if len(prompt_ids) <= room:
        return prompt_ids
    tail_ids = tokenizer.encode(tokenizer.chat.tail) or []
    return (prompt_ids[: max(0, room - len(tail_ids))] + tail_ids)[:room]
