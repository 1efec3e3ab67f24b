"""Train an adapter in place of all weights: gradients and optimizer states are then its own alone."""

from memory_harness.configs.schema import RunConfig
from memory_harness.probes.findings import Fix


def _apply(config: RunConfig) -> RunConfig | None:
    return config.with_fields(finetuning_type="lora") if config.train.finetuning_type == "full" else None


TRAIN_ADAPTER = Fix(
    name="train-adapter",
    title="train a LoRA adapter in place of all weights",
    addresses=("model-states-exceed-budget",),
    equivalence="data",
    change=_apply,
    slowdown=1.0,
    cost="the weights themselves stay as they are; a LoRA learns at a higher learning rate",
)
