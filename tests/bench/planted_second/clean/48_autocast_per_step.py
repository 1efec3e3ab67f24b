import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device_type = "cuda" if torch.cuda.is_available() else "cpu"

generator = nn.Sequential(nn.Linear(128, 256), nn.LeakyReLU(0.2), nn.Linear(256, 192)).to(device_type).eval().requires_grad_(False)


def invert(target, steps=3):
    z = torch.zeros(target.shape[0], 128, device=device_type, requires_grad=True)
    opt = torch.optim.Adam([z], lr=0.1)
    for _ in range(steps):
        with torch.autocast(device_type, dtype=torch.bfloat16):
            out = generator(z)
        loss = (out.float() - target).pow(2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    return z.detach(), loss.item()


mean_code = torch.zeros(128, device=device_type)
for i in range(100):
    z, loss = invert(torch.randn(16, 192, device=device_type))
    mean_code += (z.mean(0) - mean_code) / (i + 1)
    if i % 25 == 0:
        print(i, loss, mean_code.norm().item())
