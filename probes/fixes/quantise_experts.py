"""Hold the experts of a mixture in 4 bits too, as bitsandbytes can hold any weight."""

from memory_harness.configs.models import find_model
from memory_harness.configs.schema import RunConfig
from memory_harness.probes.findings import Fix


def _apply(config: RunConfig) -> RunConfig | None:
    model = config.model
    if model.quantise_experts or model.quantization != "nf4" or not find_model(model.model).has_experts:
        return None
    return config.with_fields(quantise_experts=True)


QUANTISE_EXPERTS = Fix(
    name="quantise-experts",
    title="hold the experts in 4 bits too",
    addresses=("experts-not-quantised", "weights-not-quantised"),
    equivalence="data",
    change=_apply,
    slowdown=1.0,
    cost="the experts lose precision; a layer's are dequantised whenever it computes",
)
