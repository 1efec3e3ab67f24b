"""Each epoch makes an optimizer of its own, and the list of schedulers keeps the earlier ones."""

from typing import Any

from memory_harness.configs.models import LINEAR_LAYERS
from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.probes.faults.base import Fault, after

STEPS_PER_EPOCH = 12


def _install(strategy: QLoraStrategy) -> None:
    earlier: list[Any] = []
    steps = 0

    def end_step() -> None:
        nonlocal steps
        steps += 1
        if steps % STEPS_PER_EPOCH == 0:
            earlier.append(strategy.optimizer)
            strategy.make_optimizer()

    after(strategy, "optimizer_step", end_step)


FAULT = Fault(
    name="optimizer-rebuilt",
    title="a new optimizer is made for each epoch, and the old one is kept with its states",
    settings={"lora_rank": 16, "target_modules": LINEAR_LAYERS},
    install=_install,
    other_cause="optimizer-states-twice",
)
