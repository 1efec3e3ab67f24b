"""A logger keeps what it is given; here it is given tensors of the device."""

from typing import Any

from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.probes.faults.base import Fault, on_output

LOG_EVERY = 4


def _install(strategy: QLoraStrategy) -> None:
    history: list[dict[str, Any]] = []
    step = 0

    def log(output: Any) -> None:
        nonlocal step
        step += 1
        if step % LOG_EVERY == 0:
            history.append({"step": step, "logits": output.logits.detach()})  # the mistake

    on_output(strategy, True, log)


FAULT = Fault(
    name="tensors-logged",
    title="every fourth step's predictions are logged as device tensors",
    install=_install,
)
