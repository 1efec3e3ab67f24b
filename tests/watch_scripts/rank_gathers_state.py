"""Two processes share a model out by FSDP2; for each checkpoint the first alone keeps the whole state on its device."""

import os
import socket
import sys
import tempfile

import torch
from torch import distributed, nn
from torch.distributed.fsdp import fully_shard


def train(rank, port, by_all):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo")
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Sequential(nn.Linear(512, 1024), nn.ReLU(), nn.Linear(1024, 512)) for _ in range(8)))
    for layer in model:
        fully_shard(layer)
    fully_shard(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for step in range(8):
        model(torch.randn(4, 512)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 4 == 3:
            save(model, rank == 0 or by_all)
    distributed.barrier()  # gloo's threads are done then: one that is not may wait for this one for ever
    distributed.destroy_process_group()


def save(model, gathers):
    whole = {}
    for name, part in model.state_dict().items():
        tensor = part.full_tensor()
        if gathers:
            whole[name] = tensor
    if gathers:
        with tempfile.TemporaryFile() as file:
            torch.save(whole, file)


if __name__ == "__main__":
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(train, (port, "all" in sys.argv), nprocs=2)
