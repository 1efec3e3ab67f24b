import torch
from torch import nn


class AUROC:
    def __init__(self):
        self.reset()

    def reset(self):
        self.s, self.t = [], []

    def update(self, s, t):
        self.s.append(s.detach())
        self.t.append(t.detach())

    def compute(self):
        s, t = torch.cat(self.s), torch.cat(self.t)
        ranks = torch.empty_like(s).scatter_(0, s.argsort(), torch.arange(1, len(s) + 1, dtype=s.dtype, device=s.device))
        pos = t.sum()
        return ((ranks * t).sum() - pos * (pos + 1) / 2) / (pos * (len(t) - pos))


torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"
w = torch.randn(40, device=device)
model = nn.Sequential(nn.Linear(40, 128), nn.SiLU(), nn.Linear(128, 1)).to(device)
opt = torch.optim.AdamW(model.parameters(), lr=2e-3)
metric = AUROC()
for epoch in range(12):
    model.train()
    for _ in range(6):
        x = torch.randn(64, 40, device=device)
        loss = nn.functional.binary_cross_entropy_with_logits(model(x)[:, 0], ((x @ w) > 0).float())
        opt.zero_grad()
        loss.backward()
        opt.step()
    model.eval()
    metric.reset()
    with torch.no_grad():
        for _ in range(8):
            x = torch.randn(256, 40, device=device)
            metric.update(model(x)[:, 0].sigmoid(), ((x @ w) > 0).float())
    print(epoch, round(loss.item(), 4), round(metric.compute().item(), 4))
