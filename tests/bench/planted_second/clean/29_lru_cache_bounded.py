from functools import lru_cache

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
encoder = nn.Sequential(nn.Embedding(100, 48), nn.Linear(48, 192), nn.GELU(), nn.Linear(192, 96)).to(device).eval()
net = nn.Sequential(nn.Linear(96 + 24, 128), nn.SiLU(), nn.Linear(128, 24)).to(device)
opt = torch.optim.AdamW(net.parameters(), lr=1e-3)


@lru_cache(maxsize=16)
def encode(prompt):
    ids = torch.tensor([[ord(c) % 100 for c in prompt.ljust(48)]], device=device)
    with torch.no_grad():
        return encoder(ids)


for step in range(150):
    prompts = [f"picture number {step * 2 + j}" for j in range(2)]
    cond = torch.cat([encode(p) for p in prompts]).mean(1)
    x, noise = torch.randn(2, 24, device=device), torch.randn(2, 24, device=device)
    loss = (net(torch.cat([cond, x + noise], 1)) - noise).pow(2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 50 == 0:
        print(step, loss.item(), encode.cache_info())
