"""Predictions, limits and comparisons of losses in processes of their own, seen from the process that asks for them.

These import PyTorch, which takes seconds; this one does not: what runs in them is imported there.
"""

import gc
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing.context import BaseContext

from memory_harness.configs.cards import Speeds, budget_of, card_of
from memory_harness.configs.errors import ConfigError
from memory_harness.configs.schema import DeviceConfig, RunConfig
from memory_harness.harness.log.errors import RunDied
from memory_harness.harness.log.records import AgreementRecord
from memory_harness.probes.fixes import FIXES
from memory_harness.probes.plan.choose import Goal, Limits, Plan, Prediction, make_plan


@contextmanager
def start_processes(number: int, context: BaseContext) -> Iterator[ProcessPoolExecutor]:
    """Give so many processes, each of which starts with the first thing that it is asked."""
    with ProcessPoolExecutor(number, context, initializer=_prepare) as pool:
        try:
            yield pool
        except BrokenProcessPool:
            raise RunDied(
                "a process that predicts died: somebody has killed it, or this machine ran out of memory; start again"
            ) from None
        except BaseException:
            for process in pool._processes.values():  # nobody waits for what they are at
                process.terminate()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _prepare() -> None:
    """Keep the libraries' remarks from the report; errors are raised in the process that asked.

    Collections leave out what was imported, which would take them half a second each. The runs that are waited for
    come first.
    """
    os.nice(5)
    gc.freeze()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


FewestRecomputed = Callable[[RunConfig, int], tuple[str, Prediction | None]]
"""takes a configuration and what to leave free of the budget; returns what `Forecast.fewest_recomputed` does"""


def plan_fixes(
    config: RunConfig, pool: ProcessPoolExecutor, goal: Goal, headroom_bytes: int, fewest_recomputed: FewestRecomputed
) -> Plan:
    """Return the plan for a configuration."""
    return make_plan(
        config,
        FIXES.values(),
        _PoolForecast(pool, headroom_bytes, fewest_recomputed),
        goal=goal,
        budget_bytes=budget_of(config.device),
        headroom_bytes=headroom_bytes,
    )


class _PoolForecast:
    """Implements `Forecast` in processes of their own."""

    def __init__(self, pool: ProcessPoolExecutor, headroom_bytes: int, fewest_recomputed: FewestRecomputed) -> None:
        self._pool = pool
        self._fewest_recomputed = fewest_recomputed
        self._headroom_bytes = headroom_bytes
        self._measured: Speeds | None = None

    def predict(self, configs: Sequence[RunConfig]) -> list[Prediction]:
        return list(self._pool.map(partial(_predict_there, headroom_bytes=self._headroom_bytes), configs))

    def count_tokens(self, config: RunConfig) -> int:
        return self._pool.submit(_count_tokens_there, config).result()

    def start_longest_step(self, config: RunConfig) -> Callable[[], int]:
        return self._pool.submit(_longest_step_there, config).result

    def start_seconds(self, configs: Sequence[RunConfig]) -> Callable[[], list[float]]:
        found = [self._pool.submit(_seconds_there, config, self._speeds(config.device)) for config in configs]
        return lambda: [each.result() for each in found]

    def _speeds(self, device: DeviceConfig) -> Speeds:
        """Return what a step reaches on the card, or on the GPU: measured once, by a process that leaves it free."""
        if device.device != "cuda":
            return card_of(device).speeds
        if self._measured is None:
            # not `start_processes`, which does not wait for their end
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
                self._measured = alone.submit(_measure_there).result()
        return self._measured

    def fewest_recomputed(self, config: RunConfig) -> tuple[str, Prediction | None]:
        return self._fewest_recomputed(config, self._headroom_bytes)


def predict_gpus(configs: Sequence[RunConfig], pool: ProcessPoolExecutor) -> list[tuple[Prediction, ...] | str]:
    """Return what the GPUs of each configuration take, or why it cannot be."""
    return list(pool.map(_predict_gpus_there, configs))


def limits_of(config: RunConfig, pool: ProcessPoolExecutor, headroom_bytes: int) -> Limits:
    """Return the largest micro-batch, length and token cap that fit."""
    return pool.submit(_find_limits_there, config, headroom_bytes).result()


def start_comparison(pool: ProcessPoolExecutor, fix: str) -> Callable[[], AgreementRecord | None]:
    """Begin to compare the losses of a tiny run without and with a fix; return what waits for the result."""
    return pool.submit(_compare_losses_there, fix).result


def _predict_there(config: RunConfig, headroom_bytes: int) -> Prediction:
    from memory_harness.probes.plan.predict import predict

    return predict(config, headroom_bytes)


def _count_tokens_there(config: RunConfig) -> int:
    from memory_harness.probes.plan.predict import train_tokens

    return train_tokens(config)


def _longest_step_there(config: RunConfig) -> int:
    from memory_harness.probes.plan.predict import longest_step

    return longest_step(config)


def _seconds_there(config: RunConfig, speeds: Speeds) -> float:
    from memory_harness.probes.plan.seconds import epoch_seconds

    return epoch_seconds(config, speeds)


def _measure_there() -> Speeds:
    from memory_harness.harness.devices.cuda_speeds import measured_speeds

    return measured_speeds()


def _predict_gpus_there(config: RunConfig) -> tuple[Prediction, ...] | str:
    from memory_harness.probes.plan.predict import predict_gpus

    try:
        return predict_gpus(config)
    except ConfigError as error:
        return error.problems[0]


def _find_limits_there(config: RunConfig, headroom_bytes: int) -> Limits:
    from memory_harness.probes.plan.predict import find_limits

    return find_limits(config, headroom_bytes)


def _compare_losses_there(fix: str) -> AgreementRecord | None:
    from memory_harness.probes.plan.tiny import compare_losses

    return compare_losses(fix)
