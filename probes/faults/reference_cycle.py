"""A bound method in the object's own list makes a cycle; the collector is off, as trainers do for speed."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.probes.faults.base import Fault, on_output


class _StepResult:
    def __init__(self, logits: Any) -> None:
        self.logits = logits  # the mistake
        self.callbacks = [self.describe]  # a bound method refers to its object

    def describe(self) -> str:
        return str(self.logits.shape)


@contextmanager
def _install(strategy: QLoraStrategy) -> Iterator[None]:
    on_output(strategy, True, lambda output: _StepResult(output.logits.detach()))
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


FAULT = Fault(
    name="reference-cycle",
    title="each step's result refers to itself and waits for the collector",
    install=_install,
)
