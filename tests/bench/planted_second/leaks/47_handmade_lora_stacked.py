import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(8)


class LoRA(nn.Module):
    def __init__(self, inner, r=16):
        super().__init__()
        self.inner = inner
        for p in inner.parameters():
            p.requires_grad_(False)
        first = inner
        while isinstance(first, LoRA):
            first = first.inner
        self.a = nn.Parameter(torch.randn(r, first.in_features) * 0.01)
        self.b = nn.Parameter(torch.zeros(first.out_features, r))

    def forward(self, x):
        return self.inner(x) + x @ self.a.t() @ self.b.t()


def add_lora(model):
    """a new pair of low-rank matrices around each projection (ReLoRA restarts)"""
    for i, block in enumerate(model):
        if isinstance(block, (nn.Linear, LoRA)):
            model[i] = LoRA(block)  # LEAK


model = nn.Sequential(nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 128))
target = nn.Sequential(nn.Linear(128, 64), nn.Tanh(), nn.Linear(64, 128)).requires_grad_(False)

for restart in range(15):
    add_lora(model)
    opt = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
    for _ in range(5):
        x = torch.randn(32, 128)
        loss = (model(x) - target(x)).pow(2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    if restart % 5 == 0:
        print("restart", restart, loss.item(), sum(p.numel() for p in model.parameters()))
