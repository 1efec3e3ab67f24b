"""Decoding replies, with a key/value cache that is released after each batch of prompts."""

from __future__ import annotations

from collections.abc import Sequence

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


def _cut(tokens: list[int], stops: set[int]) -> list[int]:
    end = next((i for i, token in enumerate(tokens) if token in stops), len(tokens))
    return tokens[:end]
