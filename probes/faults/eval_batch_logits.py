"""The evaluation batch is the trainer's default, whatever the training batch is."""

from memory_harness.configs.units import MIB
from memory_harness.probes.faults.base import Fault

FAULT = Fault(
    name="eval-batch-logits",
    title="evaluation at the default batch of 8 while training takes one sequence",
    settings={
        "train_batch_size": 1,
        "eval_batch_size": 8,
        "max_length": 512,
        "samples": 24,
        "eval_fraction": 0.4,
        "budget_bytes": 54 * MIB,
    },
)
