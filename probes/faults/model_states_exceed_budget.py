"""All weights are trained on a card that holds the weights, and not their gradients and optimizer states too."""

from memory_harness.configs.units import MIB
from memory_harness.probes.faults.base import Fault

FAULT = Fault(
    name="model-states-exceed-budget",
    title="all weights are trained where only the weights have room",
    settings={"quantization": "none", "finetuning_type": "full", "weights_dtype": "float32", "budget_bytes": 3 * MIB},
)
