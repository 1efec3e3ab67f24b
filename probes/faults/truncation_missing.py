"""max_length is configured and never applied."""

from memory_harness.probes.faults.base import Fault, with_lengths

FAULT = Fault(
    name="truncation-missing",
    title="samples are longer than the configured maximum",
    settings={"batching": "dynamic", "max_length": 64},
    prepare=with_lengths([48, 64, 160]),
)
