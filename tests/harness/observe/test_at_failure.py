"""What an optimizer is going to have, asked when memory has run out before its first step."""

from types import SimpleNamespace

import pytest
import torch

from memory_harness.harness.log.records import Phase
from memory_harness.harness.observe.at_failure import Failure, model_states


@pytest.mark.parametrize(
    ("kind", "options", "values"),
    [
        (torch.optim.AdamW, {}, 3),
        (torch.optim.Adam, {"amsgrad": True}, 4),
        (torch.optim.SGD, {"lr": 0.1}, 1),
    ],
)
def test_gradients_and_what_the_optimizer_keeps_of_what_trains_on_the_device(kind, options, values):
    first, second, host, frozen = (torch.nn.Parameter(torch.ones(8, 8)) for _ in range(4))
    frozen.requires_grad = False
    device = SimpleNamespace(handle_of=lambda tensor: None if tensor is host else id(tensor))
    optimizer = kind([{"params": [first, host, frozen]}, {"params": [second]}], **options)
    record = model_states(Failure(device, 1, Phase.FORWARD, 64), optimizer, "train.py:3")
    assert (record.bytes_per_step, record.num_tensors) == (2 * values * 8 * 8 * 4, 2)
    assert record.holder == f"{kind.__name__} (train.py:3)"
