"""Which configurations replay the same recorded model."""

from memory_harness.configs.schema import RunConfig, section_by_field

REPLAYED_FIELDS = (
    *("budget_bytes", "expandable_segments", "empty_cache_every", "empty_cache_before_eval"),
    *("train_batch_size", "eval_batch_size", "gradient_accumulation", "batching", "max_batch_tokens", "max_length"),
    *("pad_to_multiple_of", "samples", "epochs", "max_steps", "recompute"),
)
"""what may differ between runs that replay the same recorded model"""


def recording_of(config: RunConfig) -> str:
    """Return what is equal for two configurations that differ in `REPLAYED_FIELDS` alone, once simulated."""
    defaults = RunConfig()
    section_of = section_by_field()
    values = {name: getattr(getattr(defaults, section_of[name]), name) for name in REPLAYED_FIELDS}
    if config.data.batching == "packed":
        del values["batching"]  # which forbids CUDA graphs, and is looked into while the model loads
    if config.device.engine == "split":
        del values["budget_bytes"]  # which decides where the layers lie
    return config.with_fields(**values, device="simulated", tensors="fake").fingerprint()
