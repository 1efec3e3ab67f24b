"""Truncate the longest samples: the last resort, because the model then learns from other data."""

from memory_harness.configs.schema import RunConfig
from memory_harness.probes.findings import Fix

TRUNCATED_LENGTH = 1024
"""Of the synthetic corpus's samples 4 % are longer, and 1 % longer than 2048."""


def _apply(config: RunConfig) -> RunConfig | None:
    if config.data.max_length <= TRUNCATED_LENGTH:
        return None
    shorter = config.with_fields(max_length=TRUNCATED_LENGTH)
    cap = config.data.max_batch_tokens
    if cap is None:
        return shorter
    # a cap that stayed would put two of the shorter samples where one was
    return shorter.with_fields(max_batch_tokens=min(cap, config.train.train_batch_size * TRUNCATED_LENGTH))


TRUNCATION = Fix(
    name="truncation",
    title=f"truncate samples to {TRUNCATED_LENGTH} tokens",
    addresses=("longest-sample", "logits-fp32-copies", "attention-math-fallback", "padding-to-max"),
    equivalence="data",
    change=_apply,
    slowdown=1.0,
    cost="what is cut off is not learned",
)
