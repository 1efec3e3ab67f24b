"""Streaming classifier: a recurrent memory (kept as initialised) under a trained head."""
import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)


class Streamer(nn.Module):
    def __init__(self, width=96, classes=5):
        super().__init__()
        self.memory = nn.GRUCell(20, width)
        self.head = nn.Linear(width, classes)
        self.carry = None

    def forward(self, chunk):
        if self.carry is None:
            self.carry = chunk.new_zeros(chunk.size(1), self.memory.hidden_size)
        for frame in chunk:
            self.carry = self.memory(frame, self.carry)  # LEAK
        return self.head(self.carry)


def stream(n, gen=torch.Generator().manual_seed(3)):
    for _ in range(n):
        x = torch.randn(6, 12, 20, generator=gen)
        yield x, (x[-1, :, 0] > 0).long() + (x[-1, :, 1] > 0).long()


net = Streamer()
opt = torch.optim.SGD(net.head.parameters(), lr=0.05)
for t, (chunk, label) in enumerate(stream(48)):
    loss = F.cross_entropy(net(chunk), label)
    opt.zero_grad()
    # "RuntimeError: Trying to backward through the graph a second time" went away with this:
    loss.backward(retain_graph=True)  # LEAK
    opt.step()
    if t % 12 == 11:
        print(t + 1, f"{loss.item():.4f}")
