"""New tokens were added, so all rows of both matrices get gradients and Adam's states."""

from collections.abc import Callable

from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.probes.faults.base import Fault, around


def _install(strategy: QLoraStrategy) -> None:
    def make_optimizer(original: Callable[[], None]) -> None:
        base = strategy.model.get_base_model()
        for module in (base.get_input_embeddings(), base.get_output_embeddings()):
            module.weight.requires_grad_(True)  # the mistake
        original()

    around(strategy, "make_optimizer", make_optimizer)


FAULT = Fault(
    name="head-trainable",
    title="embeddings and output head are trained along with the adapter",
    install=_install,
)
