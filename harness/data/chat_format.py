"""Conversations as text: the chat template around a question and its reply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from typing import Any

import regex

from memory_harness.configs.errors import reason_of
from memory_harness.harness.data.time_limit import time_limit
from memory_harness.harness.log.errors import DataError

SYSTEM_PROMPT = "You are an empathetic listener. Reply in Bengali."
"""In English, which costs a fifth of the tokens: this text is in every sample."""

# Stand for a question and a reply where a template is rendered: a template that escapes or trims texts changes them.
_QUESTION = "\ue000 \"A\" 'b' <i> & \\ \n\n c\ue000"
_REPLY = _QUESTION.replace("\ue000", "\ue001")

_TODAY = regex.compile(r"""strftime_now\(\s*(['"])(?<format>.*?)\1\s*\)""")
_DAY = date(2024, 7, 26)  # Llama 3.1's template writes it where no date is given


@dataclass(frozen=True)
class ChatFormat:
    """A chat template with the system prompt filled in: a prompt is head + question + tail, a reply ends with `end`."""

    head: str
    tail: str
    end: str
    marks: tuple[str, ...] = ("<|",)
    """what reads as a special token, or as the start of one"""


def llama3_format(system: str | None = SYSTEM_PROMPT) -> ChatFormat:
    """Return Llama 3's template; the beginning-of-text token is part of it, so a tokenizer must not add its own.

    Source: ChatFormat in llama_models/llama3/chat_format.py. The date lines that the Hub's Llama 3.1 template puts
    before the system prompt are left out.
    """
    return ChatFormat(llama3_head(() if system is None else (("system", system),)), _LLAMA3_TAIL, "<|eot_id|>")


def llama3_head(turns: Sequence[tuple[str, str]]) -> str:
    """Return what stands before a question that follows turns of (role, text)."""
    before = "".join(f"{_header(role)}{text}<|eot_id|>" for role, text in turns)
    return f"<|begin_of_text|>{before}{_header('user')}"


def _header(role: str) -> str:
    return f"<|start_header_id|>{role}<|end_header_id|>\n\n"


_LLAMA3_TAIL = f"<|eot_id|>{_header('assistant')}"


TEMPLATE_SECONDS = 2.0
"""of processor time that a template may take for a conversation: known ones take some milliseconds"""


def own_format(tokenizer: Any, name: str, system: str | None = SYSTEM_PROMPT) -> ChatFormat:
    """Take the chat template of a transformers tokenizer apart around a question and its reply.

    Raises:
        DataError: there is no template, it fails, it changes the texts, or nothing in it ends a reply.
    """
    if not tokenizer.chat_template:
        raise DataError(
            f"the tokenizer {name} has no chat template, as those of base models have none; give the folder of the "
            "instruction-tuned model's with --tokenizer"
        )
    try:
        messages = _messages(tokenizer, system)
        prompt = _rendered(tokenizer, messages, add_generation_prompt=True)
        whole = _rendered(tokenizer, [*messages, {"role": "assistant", "content": _REPLY}])
    except Exception as error:  # a template is a program, and raises whatever it likes
        raise DataError(
            f"the chat template of the tokenizer {name} cannot be used: {reason_of(error)}; "
            "correct it, or give another tokenizer with --tokenizer"
        ) from error
    if not prompt.count(_QUESTION) == whole.count(_QUESTION) == whole.count(_REPLY) == 1:
        raise DataError(
            f"the chat template of the tokenizer {name} does not repeat a question and its reply once and unchanged; "
            "correct it, or give another tokenizer with --tokenizer"
        )
    head, _, generation_prompt = prompt.partition(_QUESTION)
    between, _, after = whole.partition(_QUESTION)[2].partition(_REPLY)
    return ChatFormat(head, _tail(generation_prompt, between), _end(tokenizer, name, after), _marks(tokenizer))


def _messages(tokenizer: Any, system: str | None) -> list[dict[str, str]]:
    """Return the system prompt and the question; in one turn where the template refuses or drops a system prompt."""
    if system is None:
        return [{"role": "user", "content": _QUESTION}]
    messages = [{"role": "system", "content": system}, {"role": "user", "content": _QUESTION}]
    with suppress(Exception):  # Gemma 2 has no such role, Mistral v0.2 only turns that alternate
        if system in _rendered(tokenizer, messages, add_generation_prompt=True):
            return messages
    # Two line feeds as in Gemma 3 and Mistral v0.3, whose templates move the system prompt there themselves.
    return [{"role": "user", "content": f"{system}\n\n{_QUESTION}"}]


def _rendered(tokenizer: Any, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = False) -> str:
    template = tokenizer.get_chat_template()
    if not isinstance(template, str):
        raise TypeError(f"it is {template!r}, not a text")
    with time_limit(TEMPLATE_SECONDS):
        text: str = tokenizer.apply_chat_template(
            messages,
            # One day for all days: a run resumed tomorrow, and its replies, must see the text of today's training.
            chat_template=_TODAY.sub(lambda call: repr(_DAY.strftime(call["format"])), template),
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            enable_thinking=False,  # the corpus has replies without the thoughts before them
        )
    return text


def _tail(generation_prompt: str, between: str) -> str:
    """Return the generation prompt, with all that the template puts before a reply that has no thoughts.

    An empty think block or the name of a channel is the same in every reply: there is nothing to learn or to generate.
    A blank is left out, as it belongs to the reply's first token.
    """
    if between.startswith(generation_prompt) and between[len(generation_prompt) :].strip():
        return between
    if generation_prompt.rstrip().endswith("<think>"):  # DeepSeek R1 opens thoughts, and drops them from past replies
        return f"{generation_prompt.rstrip()}\n\n</think>\n\n"
    return generation_prompt


def _end(tokenizer: Any, name: str, after: str) -> str:
    """Return what ends a reply: the template's text up to its first special token, else the end of sequence.

    The two differ in Gemma (`<end_of_turn>`, `<eos>`) and Phi-3 (`<|end|>`, `<|endoftext|>`).
    """
    added = [token.content for token in tokenizer.added_tokens_decoder.values()]
    # Runs of blanks are added tokens too. Not all that end a turn are marked as special.
    ends = [after.index(text) + len(text) for text in added if text.strip() and text in after]
    if ends:
        return after[: min(ends)]
    if not tokenizer.eos_token:
        raise DataError(
            f"the tokenizer {name} has no eos_token, and its chat template ends a reply with no special token: no "
            "reply would ever end; set eos_token in its tokenizer_config.json, or give another with --tokenizer"
        )
    return str(tokenizer.eos_token)


def _marks(tokenizer: Any) -> tuple[str, ...]:
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    return ("<|", *(text for text in special if len(text) > 1 and "<|" not in text))


def render(question: str, chat: ChatFormat) -> str:
    """Return the prompt that asks the question and hands the turn to the assistant."""
    return f"{chat.head}{plain(question, chat)}{chat.tail}"


def plain(text: str, chat: ChatFormat) -> str:
    """Return the text with what would read as a special token broken up, so that no sample can end its own turn."""
    for mark in chat.marks:
        text = text.replace(mark, f"{mark[0]} {mark[1:]}")
    return text


def render_turns(tokenizer: Any, name: str, turns: Sequence[tuple[str, str]], question: str, chat: ChatFormat) -> str:
    """Return the prompt of a conversation by the tokenizer's own template; see `own_format`.

    Raises:
        DataError: the template refuses the conversation, even with its system prompt in the first turn.
    """
    messages = [{"role": role, "content": plain(text, chat)} for role, text in turns]
    messages.append({"role": "user", "content": plain(question, chat)})
    try:
        return _rendered(tokenizer, messages, add_generation_prompt=True)
    except Exception as refused:  # a template is a program, and raises whatever it likes
        if messages[0]["role"] != "system" or messages[1]["role"] != "user":
            raise _refused(name, refused) from refused
    first, second, *rest = messages
    merged = {"role": "user", "content": f"{first['content']}\n\n{second['content']}"}
    try:
        return _rendered(tokenizer, [merged, *rest], add_generation_prompt=True)
    except Exception as refused:
        raise _refused(name, refused) from refused


def _refused(name: str, error: Exception) -> DataError:
    return DataError(
        f"the chat template of the tokenizer {name} refuses a conversation of --data: {reason_of(error)[:80]}; "
        "give another tokenizer with --tokenizer"
    )
