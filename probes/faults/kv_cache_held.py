"""A list of generation outputs holds past_key_values."""

from collections.abc import Callable
from typing import Any

from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.probes.faults.base import Fault, around


def _install(strategy: QLoraStrategy) -> None:
    results: list[Any] = []

    def release(original: Callable[[], None]) -> None:
        results.append(strategy.cache)  # the mistake
        original()

    around(strategy, "release", release)


FAULT = Fault(
    name="kv-cache-held",
    title="each generation's key/value cache is kept beside its text",
    settings={"generate_prompts": 4, "max_new_tokens": 4},
    install=_install,
)
