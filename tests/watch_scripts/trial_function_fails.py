"""Each trial catches its own failure; none succeeds, and the script says so."""

import sys

import torch
from torch import nn


def trial(width):
    try:
        model = nn.Linear(256, width)
        model(torch.randn(16384, 256)).mean().backward()
    except RuntimeError:  # caught here
        return None
    return model


if not any(trial(width) for width in (4096, 2048, 1024)):
    sys.exit("no width fits")
