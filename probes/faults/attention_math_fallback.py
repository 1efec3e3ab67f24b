"""Without a mask the model passes enable_gqa, which only the math kernel accepts on this card."""

from memory_harness.probes.faults.base import Fault, with_lengths

FAULT = Fault(
    name="attention-math-fallback",
    title="unpadded batches on a card whose fused kernels do not take grouped heads",
    # chunked, so that the loss's copies do not hide the scores
    settings={
        "batching": "dynamic",
        "pad_to_multiple_of": 1,
        "max_length": 768,
        "gpu": "t4",
        "loss": "chunked",
        "expand_kv": False,
    },
    prepare=with_lengths([64, 640, 256, 384, 768, 128, 512]),
)
