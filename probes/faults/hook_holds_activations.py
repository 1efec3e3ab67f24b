"""Hooks that were put in to look at activations once, and stayed."""

from typing import Any

from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.probes.faults.base import Fault, after


def _install(strategy: QLoraStrategy) -> None:
    activations: list[Any] = []

    def keep(module: Any, args: Any, output: Any) -> None:
        activations.append(output)  # the mistake

    def register() -> None:
        for layer in strategy.model.get_base_model().model.layers:
            layer.register_forward_hook(keep)

    after(strategy, "load", register)


FAULT = Fault(
    name="hook-holds-activations",
    title="forward hooks append each layer's output to a list",
    install=_install,
)
