"""Refused: a CUDA graph keeps a pool of memory of its own."""

import torch

model = torch.nn.Linear(64, 64).cuda()
x = torch.randn(32, 64, device="cuda")
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    y = model(x)
graph.replay()
