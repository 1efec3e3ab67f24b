"""A plain loop under DistributedDataParallel, as torchrun starts it; several buckets of gradients."""

import argparse
import os

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

parser = argparse.ArgumentParser()
parser.add_argument("--bucket-view", action="store_true")
args = parser.parse_args()

has_gpu = torch.cuda.is_available()
distributed.init_process_group("nccl" if has_gpu else "gloo")
rank = int(os.environ["LOCAL_RANK"])
device = torch.device("cuda", rank) if has_gpu else torch.device("cpu")
if has_gpu:
    torch.cuda.set_device(device)

torch.manual_seed(0)
layers = []
for _ in range(6):
    layers += [nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 256)]
model = DistributedDataParallel(
    nn.Sequential(*layers).to(rank if has_gpu else "cpu"),
    device_ids=[rank] if has_gpu else None,
    bucket_cap_mb=2,
    gradient_as_bucket_view=args.bucket_view,
)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
data = TensorDataset(torch.randn(40, 256))
for (batch,) in DataLoader(data, batch_size=4, sampler=DistributedSampler(data)):
    loss = model(batch.to(device)).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)
    mean = loss.detach().clone()
    distributed.all_reduce(mean)
    counts = [torch.zeros(1, dtype=torch.long, device=device) for _ in range(distributed.get_world_size())]
    distributed.all_gather(counts, torch.full((1,), len(batch), device=device))
    assert sum(int(count) for count in counts) == len(batch) * distributed.get_world_size()
    del loss, mean, counts
distributed.barrier()  # gloo's threads are done then: one that is not may wait for this one for ever
distributed.destroy_process_group()
