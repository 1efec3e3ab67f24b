"""Conversations as text: the chat template around a question and its reply."""

from __future__ import annotations

from dataclasses import dataclass

SYSTEM_PROMPT = "You are an empathetic listener. Reply in Bengali."
"""In English, which costs a fifth of the tokens: this text is in every sample."""


@dataclass(frozen=True)
class ChatFormat:
    """A chat template with the system prompt filled in: a prompt is head + question + tail, a reply ends with `end`."""

    head: str
    tail: str
    end: str


def llama3_format(system: str = SYSTEM_PROMPT) -> ChatFormat:
    """Return Llama 3's template; the beginning-of-text token is part of it, so a tokenizer must not add its own.

    Source: ChatFormat in llama_models/llama3/chat_format.py. The date lines that the Hub's Llama 3.1 template puts
    before the system prompt are left out.
    """
    head = f"<|begin_of_text|>{_header('system')}{system}<|eot_id|>{_header('user')}"
    return ChatFormat(head, f"<|eot_id|>{_header('assistant')}", "<|eot_id|>")


def _header(role: str) -> str:
    return f"<|start_header_id|>{role}<|end_header_id|>\n\n"


def render(question: str, chat: ChatFormat) -> str:
    """Return the prompt that asks the question and hands the turn to the assistant."""
    return f"{chat.head}{plain(question)}{chat.tail}"


def plain(text: str) -> str:
    """Return the text with what would read as a special token broken up, so that no sample can end its own turn."""
    return text.replace("<|", "< |")
