"""A merged 16-bit checkpoint needs the whole base in 16 bits at once."""

from collections.abc import Callable
from pathlib import Path

import bitsandbytes

from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.probes.faults.base import Fault, around


def _install(strategy: QLoraStrategy) -> None:
    def save(original: Callable[[Path], None], folder: Path) -> None:
        original(folder)
        dequantize = bitsandbytes.functional.dequantize_4bit
        quantised = [p for p in strategy.model.parameters() if hasattr(p, "quant_state")]
        merged = [dequantize(p.data, p.quant_state) for p in quantised]  # the mistake
        del merged

    around(strategy, "save", save)


FAULT = Fault(
    name="merge-dequantises",
    title="saving merges the adapter into a base dequantised as a whole",
    install=_install,
)
