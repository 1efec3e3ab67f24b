"""A variable outside the evaluation function still refers to the last batch's output."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.probes.faults.base import Fault, on_output


@contextmanager
def _install(strategy: QLoraStrategy) -> Iterator[None]:
    last: dict[str, Any] = {}

    def remember(output: Any) -> None:
        last["output"] = output  # the mistake

    on_output(strategy, False, remember)
    yield


EVAL_LEFTOVER = Fault(
    name="eval-leftover",
    cause="eval-leftover",
    title="the last output of an evaluation stays referenced while training goes on",
    install=_install,
)
