"""After training: the held-out loss, replies and what they score, with the adapter and without."""

from __future__ import annotations

from configs.schema import RunConfig
from harness.data import Prepared
from harness.recorder import Recorder
from harness.replies import Reply
from harness.strategies.base import Strategy


def assess(config: RunConfig, strategy: Strategy, recorder: Recorder, data: Prepared) -> list[Reply]:
    """Evaluate and generate, with the adapter and (`compare_base`) without; write the metrics, return all replies.

    To be called within `device.active()`, in place of `answer_prompts`. Writes EVAL and GENERATE phases, an
    `EvalRecord` and a `MetricsRecord` for each of the two.

    Raises:
        Whatever the device raises when memory runs out.
    """
    raise NotImplementedError
