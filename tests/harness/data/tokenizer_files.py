"""Small tokenizers as transformers loads them, with any chat template."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def make_tokenizer(specials: Sequence[str], chat_template: Any = None, eos: str | None = None) -> Any:
    """Return a byte-level tokenizer; the first special token begins a text, `eos` ends it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({char: i for i, char in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(specials))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=specials[0], eos_token=eos)
    fast.chat_template = chat_template
    return fast


def write_tokenizer(folder: Path, specials: Sequence[str], chat_template: str | None = None) -> Path:
    """Save a byte-level tokenizer with these special tokens, the second of which is its end of sequence."""
    make_tokenizer(specials, chat_template, specials[1]).save_pretrained(folder)
    return folder
