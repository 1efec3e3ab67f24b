"""Layers shared out by FSDP2 over all ranks, as torchrun starts them."""

import os

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

has_gpu = torch.cuda.is_available()
kind = "cuda" if has_gpu else "cpu"
distributed.init_process_group("nccl" if has_gpu else "gloo")
if has_gpu:
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
mesh = init_device_mesh(kind, (distributed.get_world_size(),))

torch.manual_seed(0)
model = nn.Sequential(*(nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 256)) for _ in range(4)))
model.to(kind)
policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
for layer in model:
    fully_shard(layer, mesh=mesh, mp_policy=policy)
fully_shard(model, mesh=mesh, mp_policy=policy)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
for _ in range(4):
    loss = model(torch.randn(4, 256, device=kind)).square().mean()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    del loss
distributed.barrier()  # gloo's threads are done then: one that is not may wait for this one for ever
distributed.destroy_process_group()
