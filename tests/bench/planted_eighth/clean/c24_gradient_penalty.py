import torch
from torch import nn

torch.manual_seed(24)
critic = nn.Sequential(nn.Linear(64, 256), nn.LeakyReLU(0.2), nn.Linear(256, 256), nn.Softplus(), nn.Linear(256, 1))
gen = nn.Sequential(nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, 64))
oc, og = torch.optim.Adam(critic.parameters(), 1e-4), torch.optim.Adam(gen.parameters(), 1e-4)
log = {"gp": [], "w": []}
for it in range(70):
    real, fake = torch.randn(64, 64) + 1, gen(torch.randn(64, 16))
    u = torch.rand(64, 1)
    mix = (u * real + (1 - u) * fake.detach()).requires_grad_()
    (g,) = torch.autograd.grad(critic(mix).sum(), mix, create_graph=True)
    gp = (g.norm(dim=1) - 1).pow(2).mean()
    w = critic(fake.detach()).mean() - critic(real).mean()
    oc.zero_grad()
    (w + 10 * gp).backward()
    oc.step()
    log["gp"].append(gp)
    log["w"].append(w)
    og.zero_grad()
    (-critic(fake).mean()).backward()
    og.step()
    if it % 14 == 13:
        print(it + 1, *(f"{k} {v[-1].item():.4f}" for k, v in log.items()))
