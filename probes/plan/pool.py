"""Predictions, limits and comparisons of losses in processes of their own, seen from the process that asks for them.

These import PyTorch, which takes seconds; this one does not.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial

from memory_harness.configs.cards import find_card
from memory_harness.configs.schema import RunConfig
from memory_harness.harness.log.records import AgreementRecord
from memory_harness.probes.fixes import FIXES
from memory_harness.probes.plan.choose import Goal, Limits, Plan, Prediction, make_plan


@contextmanager
def start_processes(number: int) -> Iterator[ProcessPoolExecutor]:
    """Give so many processes, each of which starts with the first thing that it is asked."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(number, context, initializer=_be_silent) as pool:
        try:
            yield pool
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _be_silent() -> None:
    """Keep the libraries' remarks from the report; errors are raised in the process that asked."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def plan_fixes(config: RunConfig, pool: ProcessPoolExecutor, goal: Goal, headroom_bytes: int) -> Plan:
    """Return the plan for a configuration."""

    def predict_all(configs: Sequence[RunConfig]) -> list[Prediction]:
        return list(pool.map(partial(_predict, headroom_bytes=headroom_bytes), configs))

    return make_plan(
        config, FIXES.values(), predict_all, goal=goal, budget_bytes=budget_of(config), headroom_bytes=headroom_bytes
    )


def limits_of(config: RunConfig, pool: ProcessPoolExecutor, headroom_bytes: int) -> Limits:
    """Return the largest micro-batch, length and token cap that fit."""
    return pool.submit(_find_limits, config, headroom_bytes).result()


def budget_of(config: RunConfig) -> int:
    """Return what the allocator may reserve."""
    return config.device.budget_bytes or find_card(config.device.gpu).budget_bytes


def tiny_agreement(name: str) -> AgreementRecord:
    """Return how the losses of a tiny run agree without and with a fix; slow, for a process of the pool."""
    from memory_harness.probes.plan import tiny

    return tiny.tiny_agreement(name)


def _predict(config: RunConfig, headroom_bytes: int) -> Prediction:
    from memory_harness.probes.plan import predict as prediction

    return prediction.predict(config, headroom_bytes)


def _find_limits(config: RunConfig, headroom_bytes: int) -> Limits:
    from memory_harness.probes.plan import predict as prediction

    return prediction.find_limits(config, headroom_bytes)
