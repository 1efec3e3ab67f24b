"""Keep the activations that gradient checkpointing saves on the host."""

from memory_harness.configs.schema import RunConfig
from memory_harness.probes.findings import Fix


def _apply(config: RunConfig) -> RunConfig | None:
    if config.model.offload_activations or not config.model.gradient_checkpointing:
        return None
    return config.with_fields(offload_activations=True)


OFFLOAD_ACTIVATIONS = Fix(
    name="offload-activations",
    title="keep saved activations in host memory until the backward pass",
    addresses=("longest-sample",),
    equivalence="exact",
    change=_apply,
    slowdown=1.1,
    cost="host memory; copies that a slow bus does not hide",
)
