"""padding='max_length' although most samples are short."""

from memory_harness.probes.faults.base import Fault, with_lengths

FAULT = Fault(
    name="padding-to-max",
    title="every sample is padded to the maximum length",
    settings={"batching": "padded", "max_length": 128},
    prepare=with_lengths([24, 40, 32, 56]),
)
