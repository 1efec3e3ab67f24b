"""What is put in the place of PyTorch's functions while a script runs."""

from contextlib import ExitStack, nullcontext
from types import SimpleNamespace
from unittest.mock import patch

import torch

from memory_harness.harness.observe.script_patches import patches_of_tensors


def test_lazy_layers_go_to_their_device():
    device = SimpleNamespace(torch_device=torch.device("cpu"), on_host=nullcontext)
    with ExitStack() as stack:
        for owner, name, value in patches_of_tensors(device):
            stack.enter_context(patch.object(owner, name, value))
        layer = torch.nn.Sequential(torch.nn.LazyLinear(2), torch.nn.LazyBatchNorm1d()).to("cpu").cpu()
        assert layer(torch.ones(3, 4)).shape == (3, 2)
