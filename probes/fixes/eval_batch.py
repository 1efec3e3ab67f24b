"""Evaluate at the training batch size."""

from memory_harness.configs.schema import RunConfig
from memory_harness.probes.findings import Fix


def _apply(config: RunConfig) -> RunConfig | None:
    if config.eval.eval_batch_size <= config.train.train_batch_size:
        return None
    return config.with_fields(eval_batch_size=config.train.train_batch_size)


EVAL_BATCH = Fix(
    name="eval-batch",
    title="evaluate as many sequences at once as training does",
    addresses=("eval-batch-logits",),
    equivalence="numerical",
    change=_apply,
    slowdown=1.0,
    cost="training is the same bit for bit; the evaluation's loss is summed in another order",
)
