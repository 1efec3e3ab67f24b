"""A process makes the data, another trains on it and keeps nothing."""

import multiprocessing

import torch
from torch import nn


def count(queue):
    for number in range(20):
        queue.put(number)


def train(queue):
    torch.set_num_threads(1)
    model = nn.Linear(64, 64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(20):
        optimizer.zero_grad()
        model(torch.full((32, 64), float(queue.get()))).pow(2).mean().backward()
        optimizer.step()


if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    numbers = context.Queue()
    processes = [context.Process(target=work, args=(numbers,)) for work in (count, train)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
