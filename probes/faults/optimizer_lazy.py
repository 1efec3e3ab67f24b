"""Adam's states are allocated when they are first needed."""

from memory_harness.configs.models import LINEAR_LAYERS
from memory_harness.configs.units import MIB
from memory_harness.probes.faults.base import Fault

FAULT = Fault(
    name="optimizer-lazy",
    title="a large adapter's optimizer states appear at the first step",
    settings={"lora_rank": 64, "target_modules": LINEAR_LAYERS, "budget_bytes": 48 * MIB},
)
