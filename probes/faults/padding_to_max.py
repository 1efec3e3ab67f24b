"""padding='max_length' although most samples are short."""

from __future__ import annotations

from memory_harness.harness.data.prepare import Prepared
from memory_harness.probes.faults.base import Fault, with_lengths


def _prepare(data: Prepared) -> Prepared:
    return with_lengths(data, [24, 40, 32, 56])


PADDING_TO_MAX = Fault(
    name="padding-to-max",
    cause="padding-to-max",
    title="every sample is padded to the maximum length",
    settings={"batching": "padded", "max_length": 128},
    prepare=_prepare,
)
