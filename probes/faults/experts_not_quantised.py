"""A mixture of experts loaded in 4 bits, of which bitsandbytes replaces the linear layers alone."""

from memory_harness.probes.faults.base import Fault

FAULT = Fault(
    name="experts-not-quantised",
    title="the experts of a mixture stay as they are, as 4-bit loading leaves them",
    settings={"model": "tiny-moe", "quantization": "nf4", "quantise_experts": False},
)
