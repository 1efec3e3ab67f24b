import asyncio

import torch
from torch import nn

torch.manual_seed(21)
torch.set_num_threads(1)


async def fetch(shard):
    await asyncio.sleep(0)
    return torch.randn(6, 32, 48), torch.randint(4, (6, 32))


async def producer(queue, shards):
    for shard in range(shards):
        x, y = await fetch(shard)
        for row in range(len(x)):
            await queue.put((x[row].clone(), y[row]))
    await queue.put(None)


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(48, 32, batch_first=True)
        self.fc = nn.Linear(32, 4)

    def forward(self, x):
        return self.fc(self.rnn(x)[0])


async def consumer(queue, steps):
    model = Tagger()
    opt = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(steps):
        item = await queue.get()
        if item is None:
            break
        x, y = item
        loss = nn.functional.cross_entropy(model(x[None])[0], y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        await asyncio.sleep(0)
        if step % 30 == 0:
            print(step, loss.item(), "waiting", queue.qsize())


async def main():
    queue = asyncio.Queue()
    loading = asyncio.create_task(producer(queue, shards=400))
    await consumer(queue, steps=120)
    loading.cancel()


asyncio.run(main())
