"""Compute feed-forward blocks over some tokens at a time."""

from memory_harness.configs.models import find_model
from memory_harness.configs.schema import RunConfig
from memory_harness.probes.findings import Fix

NUM_CHUNKS = 4
"""Of long batches: with that many, what a layer keeps for attention's backward pass outweighs a chunk."""

LARGEST_CHUNK = 4096


def _apply(config: RunConfig) -> RunConfig | None:
    if config.model.tiled_mlp or config.draws_in_mlp or not find_model(config.model.model).is_like_llama:
        return None
    longest = config.data.max_batch_tokens or config.train.train_batch_size * config.data.max_length
    # never smaller chunks than asked for: each one dequantises the weights
    at_once = max(config.model.mlp_chunk_tokens, min(longest // NUM_CHUNKS, LARGEST_CHUNK))
    return config.with_fields(tiled_mlp=True, mlp_chunk_tokens=at_once)


TILED_MLP = Fix(
    name="tiled-mlp",
    title="compute feed-forward blocks over some tokens at a time",
    addresses=("longest-sample",),
    equivalence="numerical",
    change=_apply,
    slowdown=1.15,
    cost="weights are dequantised once per chunk",
)
