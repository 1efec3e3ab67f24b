"""Flags that lead from one configuration to another."""

from __future__ import annotations

from memory_harness.configs.cli import parse_args
from memory_harness.configs.flags import flags_between


def test_the_flags_of_a_difference_make_that_difference() -> None:
    before = parse_args([]).config
    after = before.with_fields(eval_batch_size=1, kbit_upcast=False, expandable_segments=True, empty_cache_every=10)
    assert parse_args(flags_between(before, after)).config == after
    assert flags_between(after, after) == []
