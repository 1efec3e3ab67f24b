"""Compute the loss from the logits of a few tokens at a time."""

from memory_harness.configs.models import find_model
from memory_harness.configs.schema import RunConfig
from memory_harness.probes.findings import Fix


def _apply(config: RunConfig) -> RunConfig | None:
    if config.train.loss != "full" or not find_model(config.model.model).is_like_llama:
        return None
    return config.with_fields(loss="chunked")


CHUNKED_LOSS = Fix(
    name="chunked-loss",
    title="compute the loss in chunks of tokens",
    addresses=("eval-batch-logits", "logits-fp32-copies", "longest-sample"),
    equivalence="numerical",
    change=_apply,
    slowdown=1.02,
    cost="the output head's products in smaller pieces",
)
