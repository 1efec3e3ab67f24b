"""Evaluation runs without torch.no_grad in force, so that it records a graph."""

import torch

from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.probes.faults.base import Fault, after


def _install(strategy: QLoraStrategy) -> None:
    def decorate() -> None:
        model = strategy.model
        model.forward = torch.enable_grad()(model.forward)  # the mistake

    after(strategy, "load", decorate)


FAULT = Fault(
    name="eval-with-grad",
    title="a decorated forward switches gradients on again in evaluation",
    install=_install,
)
