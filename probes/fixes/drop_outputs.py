"""Drop the model's output, and with it the logits, before the backward pass."""

from memory_harness.probes.findings import Fix, set_fields

DROP_OUTPUTS = Fix(
    name="drop-outputs",
    title="drop the model's output before the backward pass",
    addresses=("logits-fp32-copies", "longest-sample"),
    equivalence="exact",
    change=set_fields({"hold_outputs": False, "hold_until": "backward"}),
    slowdown=1.0,
    cost="nothing",
)
