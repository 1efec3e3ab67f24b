"""use_cache is true, as in most published configurations; checkpointing switches it off in training only."""

from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.probes.faults.base import Fault, after


def _install(strategy: QLoraStrategy) -> None:
    def switch_on() -> None:
        strategy.model.get_base_model().config.use_cache = True  # the mistake

    after(strategy, "load", switch_on)


FAULT = Fault(
    name="eval-use-cache",
    title="the model's configuration asks for a key/value cache",
    install=_install,
)
