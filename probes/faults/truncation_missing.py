"""max_length is configured and never applied."""

from __future__ import annotations

from memory_harness.harness.data.prepare import Prepared
from memory_harness.probes.faults.base import Fault, with_lengths


def _prepare(data: Prepared) -> Prepared:
    return with_lengths(data, [48, 64, 160])


TRUNCATION_MISSING = Fault(
    name="truncation-missing",
    cause="truncation-missing",
    title="samples are longer than the configured maximum",
    settings={"batching": "dynamic", "max_length": 64},
    prepare=_prepare,
)
