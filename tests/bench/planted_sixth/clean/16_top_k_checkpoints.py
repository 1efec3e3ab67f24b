import heapq

import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class TopK:
    """Keeps the weights of the k best evaluations for averaging at the end."""

    def __init__(self, k):
        self.k, self.heap, self.order = k, [], 0

    def offer(self, score, model):
        self.order += 1
        if len(self.heap) == self.k and score <= self.heap[0][0]:
            return
        state = {name: p.detach().clone() for name, p in model.state_dict().items()}
        entry = (score, self.order, state)
        if len(self.heap) < self.k:
            heapq.heappush(self.heap, entry)
        else:
            heapq.heapreplace(self.heap, entry)

    def average(self):
        states = [state for _, _, state in self.heap]
        return {name: torch.stack([s[name] for s in states]).mean(0) for name in states[0]}


def batch(n):
    x = torch.randn(n, 128, device=device)
    return x, (x[:, :2].sum(1) > 0).long()


model = nn.Sequential(nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 2)).to(device)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
top = TopK(k=3)
for step in range(1, 121):
    x, y = batch(32)
    loss = F.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 6 == 0:
        with torch.no_grad():
            x, y = batch(256)
            accuracy = (model(x).argmax(1) == y).float().mean().item()
        top.offer(accuracy, model)
        if step % 30 == 0:
            print(step, loss.item(), accuracy)
model.load_state_dict(top.average())
