"""An exception holds its traceback, the traceback its frames, the frames their tensors."""

from collections.abc import Callable

from memory_harness.configs.units import MIB
from memory_harness.harness.log.errors import DeviceOutOfMemory
from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.probes.faults.base import Fault, around, with_lengths


def _install(strategy: QLoraStrategy) -> None:
    errors: list[Exception] = []
    skipped = False

    def forward(original: Callable[[int], None], num_target_tokens: int) -> None:
        nonlocal skipped
        skipped = False
        try:
            original(num_target_tokens)
        except DeviceOutOfMemory as error:
            skipped = True
            errors.append(error)  # the mistake

    def backward(original: Callable[[], None]) -> None:
        if not skipped:
            original()

    around(strategy, "forward", forward)
    around(strategy, "backward", backward)


FAULT = Fault(
    name="exception-holds-frames",
    title="batches that go out of memory are skipped, their exceptions kept",
    settings={"batching": "dynamic", "max_length": 1024, "budget_bytes": 40 * MIB},
    prepare=with_lengths([64, 64, 64, 64, 64, 1024]),
    install=_install,
)
