"""What batches of a script's evaluation leave, and what only looks like it."""

from dataclasses import replace

import pytest

from memory_harness.configs.units import MIB
from memory_harness.harness.log.records import (
    GROWING_TENSOR,
    OF_METRIC,
    BatchShape,
    ForwardFacts,
    Phase,
    SurvivorRecord,
)
from memory_harness.probes.detectors import detect
from tests.builders import AS_PUBLISHED, make_log

NUM_BATCHES = 8
LEFT = MIB // 2
LIST = "global `kept` of __main__: list of 8 (mine.py:7)"
WRITTEN = f"{GROWING_TENSOR}: local `logits` of rollout() (mine.py:7)"
METRIC = f"attribute `scores` {OF_METRIC}Accuracy: list of 8 (mine.py:7)"


def evaluated(holder, *, writes=False, left_by_first=LEFT):
    """Return the log of a script in whose only evaluation each batch leaves its logits, and all are let go then."""
    log = make_log(AS_PUBLISHED.with_fields(samples=60, max_length=300), lengths=(300,))
    phases = [record for record in log.phases if record.phase is not Phase.EVAL]
    last, forward = phases[-1], ForwardFacts(False, 0, 0, LEFT, LEFT)
    level = last.after.allocated_bytes
    for number in range(NUM_BATCHES):
        before, level = level, level + (LEFT if number else left_by_first)
        after = replace(last.after, allocated_bytes=level)
        batch = BatchShape(16, number + 1 if writes else 12, (), 0)
        record = replace(last, phase=Phase.EVAL, index=number, batch=batch, forward=forward)
        phases.append(replace(record, allocated_before_bytes=before, after=after))
    held = SurvivorRecord(9, Phase.EVAL, "mine.py:5 forward", holder, LEFT, 8, unit=Phase.EVAL)
    run = replace(log.run, script="mine.py", config={})
    return replace(log, phases=phases, run=run, survivors=[held], evals=[])


@pytest.mark.parametrize(
    ("log", "causes"),
    [
        (evaluated(LIST), ["logits-hoarded"]),
        (evaluated(LIST, left_by_first=512), ["logits-hoarded"]),
        (evaluated(METRIC), []),
        (evaluated(WRITTEN, writes=True), []),
    ],
    ids=[
        "a list",
        "a list, and the first replaces the last output of training",
        "a metric that is reset",
        "a text that is written",
    ],
)
def test_what_batches_leave_until_the_evaluation_ends(log, causes):
    assert [finding.cause for finding in detect(log) if finding.phase is Phase.EVAL] == causes
