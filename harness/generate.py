"""Decoding replies, with a key/value cache that is released after each batch of prompts.

Shapes: B prompts, T prompt tokens after left padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.strategies.base import Strategy


def generate(
    strategy: Strategy, prompts: Sequence[Sequence[int]], max_new_tokens: int, stop_ids: Sequence[int]
) -> list[list[int]]:
    """Return each prompt's continuation, cut before its first stop id; ends early when all have met one."""
    stops = set(stop_ids)
    columns = [strategy.prefill(prompts)]
    running = [token not in stops for token in columns[0]]
    while any(running) and len(columns) < max_new_tokens:
        columns.append(strategy.decode())
        running = [goes_on and token not in stops for goes_on, token in zip(running, columns[-1], strict=True)]
    strategy.release()
    return [_cut(list(row), stops) for row in zip(*columns, strict=True)]


def left_padded(prompts: Sequence[Sequence[int]], pad_id: int) -> dict[str, np.ndarray[Any, Any]]:
    """Return ids and, where prompts differ in length, the mask; int64 (B, T).

    Prompts end at the same column, so that decoding continues all of them there.
    """
    width = max(len(prompt) for prompt in prompts)
    ids = np.full((len(prompts), width), pad_id, dtype=np.int64)
    mask = np.zeros((len(prompts), width), dtype=np.int64)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = prompt
        mask[row, width - len(prompt) :] = 1
    return {"input_ids": ids} if mask.all() else {"input_ids": ids, "attention_mask": mask}


def _cut(tokens: list[int], stops: set[int]) -> list[int]:
    end = next((i for i, token in enumerate(tokens) if token in stops), len(tokens))
    return tokens[:end]
