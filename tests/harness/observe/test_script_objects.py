"""What a watched script's weights tell of its updates."""

import torch

from memory_harness.harness.observe.script_objects import LeafUpdates


def test_weights_whose_memory_is_freed_under_them_are_not_read():
    updates, weight = LeafUpdates(has_values=True), torch.nn.Parameter(torch.ones(8))
    updates.note([weight])
    weight.untyped_storage().resize_(0)
    assert not updates.are_updated([weight])
    updates.note([weight])
    assert not updates.are_updated([weight])
