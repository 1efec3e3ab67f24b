"""Refused: an operator of somebody's extension, compiled for CUDA alone."""

import torch
from torch import library

kernels = library.Library("somebodys_kernels", "DEF")
kernels.define("scan(Tensor x) -> Tensor")
kernels.impl("scan", lambda x: x.cumsum(0), "CUDA")
model = torch.nn.Linear(64, 64).cuda()
y = torch.ops.somebodys_kernels.scan(model(torch.randn(32, 64, device="cuda")))
y.sum().backward()
