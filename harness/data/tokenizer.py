"""Tokenizers that need no network: one found on this machine, else a stated estimate of lengths.

Looked for in this order: the folder of --tokenizer; the folder of --model; the Hugging Face cache; Meta's tokenizer
file in the optional `llama-models` package; for tiny models a tokenizer of characters. Else it is a `LengthEstimate`.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Container, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import regex

from memory_harness.configs.errors import reason_of
from memory_harness.configs.inputs import read_input
from memory_harness.configs.models import find_model, hub_cache_folder, hub_id, is_local_checkpoint
from memory_harness.configs.places import user_cache
from memory_harness.configs.schema import RunConfig
from memory_harness.harness.data.chat_format import (
    SYSTEM_PROMPT,
    ChatFormat,
    llama3_format,
    llama3_head,
    own_format,
    plain,
    render,
    render_turns,
)
from memory_harness.harness.log.errors import DataError

TOKENS_PER_BYTE = 0.46
"""Llama 3's tokens per UTF-8 byte of Bengali."""

TOKENS_PER_ASCII_BYTE = 0.25
"""Llama 3's tokens per byte of English, rounded up."""

Turns = Sequence[tuple[str, str]]
"""who said what: (role, text)"""

LLAMA3_VOCAB_SIZE = 128_256
"""Source: llama_models/llama3/tokenizer.py, 128 000 merges and 256 special tokens."""

TINY_VOCAB_SIZE = 8192
"""Models with fewer tokens than this have no tokenizer of their own: they are made for tests."""

_SPECIAL = regex.compile(r"<\|[a-z0-9_]+\|>")
_BENGALI = range(0x0964, 0x0A00)  # from the danda, which stands among the Devanagari letters, to the block's end
_TINY_SPECIALS = (
    "<|finetune_right_pad_id|>",
    "<|begin_of_text|>",
    "<|eot_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
)


@dataclass(frozen=True)
class LengthEstimate:
    """Lengths without a tokenizer: 0.46 tokens per UTF-8 byte."""

    vocab_size: int
    """ids are below this"""
    pad_id: int
    """fills a batch on the right"""
    stop_ids: tuple[int, ...]
    """each ends a reply"""
    name: str = f"estimate ({TOKENS_PER_BYTE} tokens per UTF-8 byte; no tokenizer found)"
    chat: ChatFormat = field(default_factory=llama3_format)
    tokens_per_ascii_byte: float = TOKENS_PER_BYTE

    def count(self, text: str) -> int:
        """Return the estimated number of tokens, special tokens in the text counted as one each."""
        others, num_special = _SPECIAL.subn("", text)
        return estimate_tokens(others, self.tokens_per_ascii_byte) + num_special

    def prompt(self, question: str, turns: Turns = ()) -> str:
        """Return the prompt that asks the question after what was said before."""
        return _llama3_prompt(self.chat, question, turns)

    def encode(self, text: str) -> None:
        """Return None: no ids are known."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return an empty text."""
        return ""


def estimate_tokens(text: str, per_ascii_byte: float = TOKENS_PER_BYTE) -> int:
    """Return Llama 3's tokens for a text, estimated from its bytes; by default for a Bengali one."""
    num_fewer = (TOKENS_PER_BYTE - per_ascii_byte) * sum(map(str.isascii, text))
    return round(TOKENS_PER_BYTE * len(text.encode(errors="replace")) - num_fewer)


@dataclass(frozen=True)
class CharacterTokenizer:
    """A token for each Bengali character and for each byte of all others: reversible, and small enough for tests."""

    name: str = "characters (for tiny models)"
    vocab_size: int = len(_TINY_SPECIALS) + 256 + len(_BENGALI)
    pad_id: int = _TINY_SPECIALS.index("<|finetune_right_pad_id|>")
    stop_ids: tuple[int, ...] = (_TINY_SPECIALS.index("<|eot_id|>"),)
    chat: ChatFormat = field(default_factory=llama3_format)

    def count(self, text: str) -> int:
        """Return the number of tokens."""
        return len(self.encode(text))

    def prompt(self, question: str, turns: Turns = ()) -> str:
        """Return the prompt that asks the question after what was said before."""
        return _llama3_prompt(self.chat, question, turns)

    def encode(self, text: str) -> list[int]:
        """Return the ids: special tokens first, then bytes, then the Bengali block."""
        ids: list[int] = []
        for part in regex.split(rf"({_SPECIAL.pattern})", text):
            if part in _TINY_SPECIALS:
                ids.append(_TINY_SPECIALS.index(part))
                continue
            for char in part:
                ids += _character_ids(char)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text; bytes that are not UTF-8 become replacement characters."""
        return b"".join(map(_id_bytes, ids)).decode(errors="replace")


def _character_ids(char: str) -> list[int]:
    first_byte = len(_TINY_SPECIALS)
    if ord(char) in _BENGALI:
        return [first_byte + 256 + _BENGALI.index(ord(char))]
    return [first_byte + byte for byte in char.encode(errors="replace")]


def _id_bytes(token_id: int) -> bytes:
    index = token_id - len(_TINY_SPECIALS)
    if not 0 <= index < 256 + len(_BENGALI):
        return b""
    return bytes([index]) if index < 256 else chr(_BENGALI[index - 256]).encode()


class TransformersTokenizer:
    """A tokenizer that transformers loaded from a folder; the chat format is Llama 3's or that of its own template.

    Raises:
        DataError: its own template cannot be used.
    """

    def __init__(self, tokenizer: Any, name: str, system: str | None = SYSTEM_PROMPT) -> None:
        self._tokenizer = tokenizer
        self.name = name
        vocab = tokenizer.get_vocab()
        self.vocab_size = 1 + max(vocab.values(), default=-1)  # ids may have gaps
        candidates = (vocab.get("<|finetune_right_pad_id|>"), tokenizer.pad_token_id, tokenizer.unk_token_id, 0)
        self.pad_id = int(next(token_id for token_id in candidates if token_id is not None))
        self._speaks_llama3 = _speaks_llama3(tokenizer, vocab)
        if self._speaks_llama3:
            self.chat = llama3_format(system)
            stops = [vocab[t] for t in ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>") if t in vocab]
        else:
            self.chat = own_format(tokenizer, name, system)
            stops = [self.encode(self.chat.end)[-1], tokenizer.eos_token_id]
        self.stop_ids = tuple(dict.fromkeys(token_id for token_id in stops if token_id is not None))

    def count(self, text: str) -> int:
        """Return the number of tokens."""
        return len(self.encode(text))

    def prompt(self, question: str, turns: Turns = ()) -> str:
        """Return the prompt that asks the question after what was said before. Raises DataError, see `render_turns`."""
        if self._speaks_llama3 or not turns:
            return _llama3_prompt(self.chat, question, turns)
        return render_turns(self._tokenizer, self.name, turns, question, self.chat)

    def encode(self, text: str) -> list[int]:
        """Return the ids, none added at either end.

        Raises:
            DataError: the tokenizer has no token for a part of the text, nor one for what it does not know.
        """
        try:
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        except Exception as error:  # tokenizers raises plain Exception
            raise DataError(
                f"the tokenizer {self.name} cannot encode a text ({reason_of(error)}); give another with --tokenizer"
            ) from error
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text without special tokens."""
        try:
            return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))
        except Exception as error:  # tokenizers raises plain Exception
            raise DataError(
                f"the tokenizer {self.name} cannot decode a reply ({reason_of(error)}); give another with --tokenizer"
            ) from error


Tokenizer = LengthEstimate | CharacterTokenizer | TransformersTokenizer


def _speaks_llama3(tokenizer: Any, vocab: Container[str]) -> bool:
    """Return whether the tokens are Llama 3's; a template of a model tuned from it may have another format."""
    tokens = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    template = tokenizer.chat_template
    return all(token in vocab for token in tokens) and (not template or "<|start_header_id|>" in str(template))


def _llama3_prompt(chat: ChatFormat, question: str, turns: Turns) -> str:
    if not turns:
        return render(question, chat)
    head = llama3_head([(role, plain(text, chat)) for role, text in turns])
    return render(question, replace(chat, head=head))


def load_tokenizer(config: RunConfig, model_vocab_size: int, system: str | None = SYSTEM_PROMPT) -> Tokenizer:
    """Return the best tokenizer for the model that this machine has; never uses the network.

    Args:
        system: the system prompt of every sample; None where samples bring their own, or have none.

    Raises:
        DataError: --tokenizer holds none, one with more tokens than the model, or one whose chat format is unusable.
    """
    tokenizer = _find_tokenizer(config, model_vocab_size, system)
    if tokenizer.vocab_size > model_vocab_size:
        raise DataError(
            f"the tokenizer {tokenizer.name} has {tokenizer.vocab_size} tokens, the model only {model_vocab_size}; "
            "give the model's own with --tokenizer"
        )
    return tokenizer


def _find_tokenizer(config: RunConfig, vocab_size: int, system: str | None) -> Tokenizer:
    model, given = config.model.model, config.data.tokenizer
    shape = None if is_local_checkpoint(model) else find_model(model)
    if given is not None:
        if not _has_tokenizer(Path(given)):
            raise DataError(f"no tokenizer in --tokenizer {given}: it must be a folder with tokenizer.json")
        return _load_folder(Path(given), given, system)
    if shape is None and _has_tokenizer(Path(model)):
        return _load_folder(Path(model), model, system)
    if shape is not None:
        cached = hub_cache_folder(shape, "tokenizer.json")
        if cached is not None:
            return _load_folder(cached, f"{hub_id(shape)} (local cache)", system)
    meta_file = _llama_models_file() if vocab_size == LLAMA3_VOCAB_SIZE else None
    if meta_file is not None:
        return _from_tiktoken_file(meta_file, system)
    if CharacterTokenizer.vocab_size <= vocab_size < TINY_VOCAB_SIZE:
        return CharacterTokenizer(chat=llama3_format(system))
    pad_id, stop_ids = (vocab_size - 1, ()) if shape is None else (shape.pad_token_id, shape.eos_token_ids)
    if system is not None:
        return LengthEstimate(vocab_size, pad_id, stop_ids, chat=llama3_format(system))
    name = f"estimate ({TOKENS_PER_ASCII_BYTE} tokens per byte of ASCII, {TOKENS_PER_BYTE} per other UTF-8 byte)"
    return LengthEstimate(vocab_size, pad_id, stop_ids, name, llama3_format(None), TOKENS_PER_ASCII_BYTE)


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json"))


def _load_folder(folder: Path, name: str, system: str | None) -> TransformersTokenizer:
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        loaded.model_max_length = int(1e9)  # truncation is ours; without this it warns about long texts
        return TransformersTokenizer(loaded, name, system)
    except DataError:
        raise
    except Exception as error:  # transformers and tokenizers raise whatever their parsers raise
        reason = reason_of(error)
        raise DataError(f"cannot load the tokenizer in {folder}: {reason}; give another with --tokenizer") from error


def _llama_models_file() -> Path | None:
    """Return Meta's file where `llama-models` and `tiktoken`, which reads it, are installed; imports neither."""
    spec = find_spec("llama_models")
    if spec is None or find_spec("tiktoken") is None:
        return None
    for folder in spec.submodule_search_locations or ():
        file = Path(folder, "llama3", "tokenizer.model")
        if file.is_file():
            return file
    return None


def _from_tiktoken_file(file: Path, system: str | None) -> TransformersTokenizer:
    """Load the file's conversion from the user's cache; convert it and keep it there the first time."""
    digest = hashlib.sha256(read_input(file)).hexdigest()[:12]
    cache = user_cache()
    folder, name = cache / f"llama3-tokenizer-{digest}", "Llama 3 (from llama-models)"
    if _has_tokenizer(folder):
        from transformers import PreTrainedTokenizerFast  # AutoTokenizer would import torch

        loaded = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
        return TransformersTokenizer(loaded, name, system)
    converted = _convert(file)
    with suppress(OSError):  # a cache that cannot be written costs the conversion again, no more
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as half_written:
            converted.save_pretrained(Path(half_written, "tokenizer"))
            os.rename(Path(half_written, "tokenizer"), folder)
    return TransformersTokenizer(converted, name, system)


def _convert(file: Path) -> Any:
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import TikTokenConverter

    # The converter's default pattern is Llama 3's own.
    converter = TikTokenConverter(vocab_file=str(file), extra_special_tokens=_llama3_specials())
    return PreTrainedTokenizerFast(
        tokenizer_object=converter.converted(),
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        pad_token="<|finetune_right_pad_id|>",
        clean_up_tokenization_spaces=False,
        model_max_length=int(1e9),
    )


def _llama3_specials() -> list[str]:
    """Return the 256 special tokens in the order of their ids, from 128000 on.

    Source: llama_models/llama3/tokenizer.py.
    """
    named = [
        "begin_of_text", "end_of_text", "reserved_special_token_0", "reserved_special_token_1", "finetune_right_pad_id",
        "step_id", "start_header_id", "end_header_id", "eom_id", "eot_id", "python_tag", "image",
    ]  # fmt: skip
    reserved = [f"reserved_special_token_{i}" for i in range(2, 2 + 256 - len(named))]
    return [f"<|{token}|>" for token in named + reserved]
