import torch
from torch import nn
import torch.nn.functional as F


class LM(nn.Module):
    def __init__(self, v=1500, d=32):
        super().__init__()
        self.e = nn.Embedding(v, d)
        self.r = nn.GRU(d, d, batch_first=True)
        self.o = nn.Linear(d, v)

    def forward(self, x):
        return self.o(self.r(self.e(x))[0])


@torch.no_grad()
def evaluate(model, batches):
    model.eval()
    preds, golds = [], []
    for x in batches:
        preds.append(model(x)[:, :-1].argmax(-1))
        golds.append(x[:, 1:])
    model.train()
    p, g = torch.cat(preds), torch.cat(golds)
    return (p == g).float().mean().item()


torch.set_num_threads(1)
torch.manual_seed(6)
val = [torch.randint(0, 1500, (4, 24)) for _ in range(6)]
model = LM()
opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
scores = []
for step in range(1, 61):
    x = torch.randint(0, 1500, (4, 24))
    loss = F.cross_entropy(model(x)[:, :-1].flatten(0, 1), x[:, 1:].flatten())
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 10 == 0:
        scores.append(evaluate(model, val))
        print(step, loss.item(), scores[-1])
