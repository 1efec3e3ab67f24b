"""Two processes train a small model under DistributedDataParallel; the second one's batches are far longer."""

import os
import socket

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel


def train(rank, port):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo")
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = DistributedDataParallel(nn.Sequential(nn.Embedding(256, 128), nn.Linear(128, 512), nn.Linear(512, 256)))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for step in range(8):
        length = 2048 if rank and step % 2 else 64
        ids = torch.randint(256, (4, length))
        loss = nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    distributed.barrier()  # gloo's threads are done then: one that is not may wait for this one for ever
    distributed.destroy_process_group()


if __name__ == "__main__":
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(train, (port,), nprocs=2)
