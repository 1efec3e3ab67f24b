import asyncio

import torch
from torch import nn

torch.manual_seed(121)
torch.set_num_threads(1)


async def producer(queue, rows):
    for _ in range(rows):
        await queue.put((torch.randn(32, 48), torch.randint(4, (32,))))
    await queue.put(None)


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.fc = nn.GRU(48, 32, batch_first=True), nn.Linear(32, 4)

    def forward(self, x):
        return self.fc(self.rnn(x)[0])


async def main():
    queue = asyncio.Queue(maxsize=8)
    loading = asyncio.create_task(producer(queue, 120))
    model, step = Tagger(), 0
    opt = torch.optim.Adam(model.parameters(), 3e-3)
    while (item := await queue.get()) is not None:
        x, y = item
        loss = nn.functional.cross_entropy(model(x[None])[0], y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 30 == 0:
            print(step, loss.item(), queue.qsize())
        step += 1
    await loading


asyncio.run(main())
