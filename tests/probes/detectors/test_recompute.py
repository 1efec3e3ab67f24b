"""Layers that keep their activations because the configuration says so have not lost their checkpointing."""

import pytest

from memory_harness.harness.log.records import ForwardFacts
from tests.builders import AS_PUBLISHED, make_log
from tests.probes.detectors.test_unknown_configuration import causes, with_forward_facts


@pytest.mark.parametrize(
    ("recompute", "is_lost"),
    [("all", True), ("auto", True), ("4", True), ("none", False), ("2048:0", False), ("100:0", True)],
)
def test_only_layers_that_were_to_recompute_are_missed(recompute, is_lost):
    log = make_log(AS_PUBLISHED.with_fields(samples=40, recompute=recompute), lengths=(300, 200))
    without = with_forward_facts(log, ForwardFacts(True, 0, 0))
    assert ("checkpointing-lost" in causes(without)) is is_lost
