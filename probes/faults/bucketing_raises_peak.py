"""The longest samples end up in one batch."""

from memory_harness.probes.faults.base import Fault, with_lengths

FAULT = Fault(
    name="bucketing-raises-peak",
    title="bucketing by length with no cap on the tokens of a batch",
    settings={
        "batching": "bucketed",
        "gradient_accumulation": 4,
        "train_batch_size": 1,
        "max_batch_tokens": 10**6,
        "max_length": 256,
    },
    prepare=with_lengths([64, 128, 256, 96]),
)
