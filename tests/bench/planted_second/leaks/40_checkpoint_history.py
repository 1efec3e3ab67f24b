import copy

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(12)
torch.set_num_threads(1)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class ResMLP(nn.Module):
    def __init__(self, d=96, blocks=4):
        super().__init__()
        self.inp = nn.Linear(32, d)
        self.blocks = nn.ModuleList(nn.Sequential(nn.LayerNorm(d), nn.Linear(d, d), nn.GELU(), nn.Linear(d, d)) for _ in range(blocks))
        self.out = nn.Linear(d, 1)

    def forward(self, x):
        x = self.inp(x)
        for b in self.blocks:
            x = x + b(x)
        return self.out(x)


def validate(model, x, y):
    model.eval()
    with torch.no_grad():
        v = F.mse_loss(model(x), y).item()
    model.train()
    return v


model = ResMLP().to(device)
opt = torch.optim.Adam(model.parameters(), lr=2e-4)
vx = torch.randn(128, 32, device=device)
vy = vx.pow(2).mean(1, keepdim=True)
best, best_states = float("inf"), []

for epoch in range(30):
    for _ in range(4):
        x = torch.randn(64, 32, device=device)
        loss = F.mse_loss(model(x), x.pow(2).mean(1, keepdim=True))
        opt.zero_grad()
        loss.backward()
        opt.step()
    score = validate(model, vx, vy)
    if score < best * 1.05:
        best = min(best, score)
        best_states.append((epoch, score, copy.deepcopy(model.state_dict())))  # LEAK
    if epoch % 10 == 0:
        print(epoch, score)

epoch, score, state = min(best_states, key=lambda s: s[1])
model.load_state_dict(state)
print("best epoch", epoch, score)
