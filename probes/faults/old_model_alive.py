"""A notebook cell was run twice."""

from collections.abc import Iterator
from contextlib import contextmanager

from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.probes.faults.base import Fault


@contextmanager
def _install(strategy: QLoraStrategy) -> Iterator[None]:
    earlier = QLoraStrategy(strategy.config, strategy.device)  # the mistake
    with strategy.device.active():
        earlier.load()
    yield
    del earlier


FAULT = Fault(
    name="old-model-alive",
    title="an earlier model is still referenced when the run begins",
    install=_install,
)
