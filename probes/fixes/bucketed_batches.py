"""Put samples of like length together, with a cap on the padded tokens of a batch."""

from memory_harness.configs.schema import RunConfig
from memory_harness.probes.findings import Fix


def _apply(config: RunConfig) -> RunConfig | None:
    # Bucketing alone puts the longest samples together; the cap holds a batch to the tokens of a full training batch.
    cap = config.train.train_batch_size * config.data.max_length
    current = config.data.max_batch_tokens
    is_capped = config.data.batching == "packed" or (current is not None and current <= cap)
    if config.data.batching in ("bucketed", "packed") and is_capped:
        return None
    return config.with_fields(batching="bucketed", max_batch_tokens=min(cap, current or cap))


BUCKETED_BATCHES = Fix(
    name="bucketed-batches",
    title="batch samples of like length, under a cap on padded tokens",
    addresses=("padding-to-max", "longest-sample", "fragmentation"),
    equivalence="reordered",
    change=_apply,
    slowdown=1.0,
    cost="the order of the samples; less padding is less to compute",
)
