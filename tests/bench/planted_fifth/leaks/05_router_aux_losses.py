import torch
from torch import nn

torch.manual_seed(5)
torch.set_num_threads(1)


class Router(nn.Module):
    def __init__(self, dim, experts):
        super().__init__()
        self.gate = nn.Linear(dim, experts)
        self.aux_losses = []

    def forward(self, x):
        probs = self.gate(x).softmax(-1)
        share = probs.mean(0)
        self.aux_losses.append((share * share.log()).sum() + (probs * probs).mean())
        return probs.topk(2, dim=-1)


class MoE(nn.Module):
    def __init__(self, dim=64, experts=4):
        super().__init__()
        self.router = Router(dim, experts)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(dim, 128), nn.GELU(), nn.Linear(128, dim)) for _ in range(experts))

    def forward(self, x):
        weight, index = self.router(x)
        out = torch.zeros_like(x)
        for e, expert in enumerate(self.experts):
            rows, slot = (index == e).nonzero(as_tuple=True)
            if len(rows):
                out = out.index_add(0, rows, expert(x[rows]) * weight[rows, slot, None])
        return out


def step_loss(model, x, coef):
    loss = nn.functional.mse_loss(model(x), x.roll(1, 1))
    if coef:
        loss = loss + coef * sum(model.router.aux_losses)
        model.router.aux_losses.clear()
    return loss


model = MoE()
opt = torch.optim.AdamW(model.parameters(), 1e-3)
for step in range(80):
    loss = step_loss(model, torch.randn(512, 64), coef=0.0)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 20 == 0:
        print(step, round(loss.item(), 4))
