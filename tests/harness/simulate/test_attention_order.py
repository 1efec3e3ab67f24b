"""Which of several attention kernels is taken: the most wanted that can run."""

import pytest
import torch

from memory_harness.configs.cards import find_card
from memory_harness.configs.units import MIB
from memory_harness.harness.simulate.attention import _cudnn_workspace, choose_backend

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


@pytest.mark.parametrize(("kernels", "expected"), [("cudnn,flash,math", "cudnn"), ("flash,cudnn,math", "flash")])
def test_cudnn_is_taken_on_cards_that_have_it(kernels, expected):
    query = torch.empty(1, 4, 8, 64, dtype=torch.float16, device="meta")
    assert choose_backend(find_card("h200"), query, query[:, :2], None, True, kernels) == expected
    assert taken(kernels) == "flash"


@pytest.mark.parametrize(("tokens", "mib"), [(2048, 64.25), (4096, 128.5), (16384, 514)])
def test_its_workspace_is_as_measured(tokens, mib):
    query, key = (torch.empty(1, heads, tokens, 128, dtype=torch.float16, device="meta") for heads in (32, 8))
    assert _cudnn_workspace(query, key) == pytest.approx(mib * MIB, abs=512)
