"""A pool's worker trains a model that the main thread has tried before."""

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn


class Job:
    def __init__(self):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Embedding(50, 128), nn.Linear(128, 64))
        self.optimizer = torch.optim.Adam(self.model.parameters())
        self.seen = {}

    def step(self, number):
        hidden = self.model(torch.randint(50, (8, 64)))
        hidden.mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.seen[number] = hidden.detach()  # the mistake

    def run(self):
        for number in range(20):
            self.step(number)


job = Job()
with torch.no_grad():
    job.model(torch.zeros(1, 4, dtype=torch.long))
with ThreadPoolExecutor(1) as pool:
    pool.submit(job.run).result()
