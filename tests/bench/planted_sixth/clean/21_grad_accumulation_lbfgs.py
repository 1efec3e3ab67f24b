import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class Field(nn.Module):
    def __init__(self, width=96):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(2, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1)
        )

    def forward(self, xy):
        return self.net(xy)


def residual(model, xy):
    xy = xy.requires_grad_(True)
    u = model(xy)
    (du,) = torch.autograd.grad(u.sum(), xy, create_graph=True)
    (dxx,) = torch.autograd.grad(du[:, 0].sum(), xy, create_graph=True)
    return dxx[:, 0] + du[:, 1] - torch.sin(xy[:, 0].detach())


model = Field().to(device)
adam = torch.optim.Adam(model.parameters(), lr=2e-3)
losses = []
accumulate = 4
for step in range(120):
    loss = residual(model, torch.rand(256, 2, device=device)).pow(2).mean() / accumulate
    loss.backward()
    losses.append(loss.item() * accumulate)
    if (step + 1) % accumulate == 0:
        adam.step()
        adam.zero_grad()

points = torch.rand(512, 2, device=device)
lbfgs = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4, history_size=5)


def closure():
    lbfgs.zero_grad()
    loss = residual(model, points.clone()).pow(2).mean()
    loss.backward()
    losses.append(loss.item())
    return loss


for step in range(15):
    loss = lbfgs.step(closure)
print(losses[0], losses[119], F.relu(loss).item())
