"""Refused: the rows that a mask of unknown values selects are as many as a card would find."""

import torch

model = torch.nn.Linear(64, 64).to("cuda")
scores = model(torch.randn(32, 64, device="cuda"))
hard = scores[scores.mean(-1) > 0]
hard.sum().backward()
