"""Drop the model's output, and with it the logits, before the backward pass."""

from memory_harness.configs.schema import RunConfig
from memory_harness.probes.findings import Fix


def _apply(config: RunConfig) -> RunConfig | None:
    return config.with_fields(hold_outputs=False) if config.train.hold_outputs else None


DROP_OUTPUTS = Fix(
    name="drop-outputs",
    title="drop the model's output before the backward pass",
    addresses=("logits-fp32-copies", "longest-sample"),
    equivalence="exact",
    apply=_apply,
    slowdown=1.0,
    cost="nothing",
)
