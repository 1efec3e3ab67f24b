"""Which of several attention kernels is taken: the most wanted that can run."""

import pytest
import torch

from memory_harness.configs.cards import find_card
from memory_harness.harness.simulate.attention import choose_backend

CARD = find_card("a100-40gb")


def taken(forced, *, mask=None, grouped=False, dtype=torch.bfloat16):
    query = torch.empty(1, 4, 8, 64, dtype=dtype, device="meta")
    key = query[:, :2] if grouped else query
    return choose_backend(CARD, query, key, mask, grouped, forced)


@pytest.mark.parametrize(
    ("forced", "call", "expected"),
    [
        ("memory_efficient,flash,math", {}, "memory_efficient"),
        ("flash,memory_efficient,math", {}, "flash"),
        ("math,flash", {}, "math"),
        ("flash,memory_efficient,math", {"mask": torch.empty(1, 1, 8, 8)}, "memory_efficient"),
        ("memory_efficient,flash,math", {"grouped": True}, "flash"),
        ("flash,math", {"dtype": torch.float32}, "math"),
        ("memory_efficient", {"grouped": True}, "math"),
        ("auto", {}, "flash"),
    ],
)
def test_the_first_that_can_run_is_taken(forced, call, expected):
    assert taken(forced, **call) == expected
