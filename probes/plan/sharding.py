"""What a GPU takes with each way to share a model, and which to take: what `--sharding all` shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter

from memory_harness.configs.cards import budget_of, bytes_beside
from memory_harness.configs.schema import RunConfig
from memory_harness.configs.sharding import ENGINES, config_with, sharding_problems
from memory_harness.harness.log.records import Size
from memory_harness.probes.plan.choose import Prediction


@dataclass(frozen=True)
class Shares:
    """What each GPU takes with one engine."""

    engine: str
    budget_bytes: Size
    beside_bytes: Size
    """of the budget, for communication outside of PyTorch's allocator; an estimate"""
    gpus: tuple[Prediction, ...] = ()
    """one where all take the same"""
    refused: str = ""
    """why it cannot be; empty where it was simulated"""

    @property
    def worst(self) -> Prediction:
        """What the GPU takes that takes most."""
        return max(self.gpus, key=attrgetter("peak_reserved_bytes"))

    @property
    def worst_gpu(self) -> int:
        """Which GPU that is."""
        return self.gpus.index(self.worst)

    @property
    def imbalance(self) -> float:
        """How many times the mean of the GPUs the worst one allocates."""
        peaks = [gpu.peak_allocated_bytes for gpu in self.gpus]
        return max(peaks) * len(peaks) / sum(peaks)

    @property
    def free_bytes(self) -> int:
        """What is left of the worst GPU's budget at the most that its allocator reserves; below 0: it is too much."""
        return self.budget_bytes - self.beside_bytes - self.worst.peak_reserved_bytes

    @property
    def fits(self) -> bool:
        """Whether all GPUs have room, without the allocator having to give its cache back."""
        return not self.refused and self.free_bytes >= 0

    @property
    def is_tight(self) -> bool:
        """Whether there is room for what is allocated, but not for what the allocator would reserve."""
        if self.refused or self.fits:
            return False
        return self.worst.peak_allocated_bytes + self.beside_bytes <= self.budget_bytes


PredictAll = Callable[[Sequence[RunConfig]], list[tuple[Prediction, ...] | str]]
"""predicts what the GPUs of several configurations take, or says why one cannot be"""


def compare_engines(config: RunConfig, predict_all: PredictAll) -> list[Shares]:
    """Return what each engine takes, the fastest first."""
    configs = {engine: config_with(config, engine) for engine in ENGINES}
    problems = {engine: sharding_problems(configs[engine]) for engine in ENGINES}
    # those that take longest to simulate first
    asked = [engine for engine in reversed(ENGINES) if not problems[engine]]
    answers = dict(zip(asked, predict_all([configs[engine] for engine in asked]), strict=True))
    found = []
    for engine in ENGINES:
        device = configs[engine].device
        beside = bytes_beside(device)
        shares = partial(Shares, engine, budget_of(device) + beside, beside)
        answer = problems[engine][0] if problems[engine] else answers[engine]
        found.append(shares(refused=answer) if isinstance(answer, str) else shares(gpus=answer))
    return found


def chosen(shares: Sequence[Shares]) -> Shares | None:
    """Return the fastest engine that fits, else the fastest that may; None where none does."""
    return next((each for each in shares if each.fits), next((each for each in shares if each.is_tight), None))
