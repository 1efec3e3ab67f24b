"""One autocast context around a study in which a curve's weights are fitted to each patient."""

import torch
from torch import nn


def fit(basis, measured):
    weights = nn.Parameter(torch.zeros(measured.shape[0], basis.shape[0]))
    optimizer = torch.optim.Adam([weights], lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        error = ((weights @ basis).float() - measured).square().mean()
        error.backward()
        optimizer.step()
    return error.item()


def study(patients):
    basis = torch.randn(48, 64)
    curve = nn.Linear(64, 64)
    with torch.no_grad():
        basis = curve(basis)
    with torch.autocast("cpu", torch.bfloat16):  # the mistake
        return [fit(basis, torch.rand(500, 64)) for _ in range(patients)]


torch.manual_seed(0)
print(sum(study(50)))
