"""The loss upcasts the logits and keeps their log-softmax."""

from memory_harness.configs.units import MIB
from memory_harness.probes.faults.base import Fault

FAULT = Fault(
    name="logits-fp32-copies",
    title="the full loss with its float32 copies on a card that is just too small",
    settings={"loss": "full", "dtype": "bfloat16", "max_length": 1024, "budget_bytes": 40 * MIB},
)
