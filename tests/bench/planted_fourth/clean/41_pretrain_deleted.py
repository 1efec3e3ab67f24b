import torch
from torch import nn

torch.manual_seed(141)
torch.set_num_threads(1)


def encoder():
    return nn.Sequential(nn.Linear(64, 320), nn.ReLU(), nn.Linear(320, 320), nn.ReLU())


def batch(n=96):
    x = torch.randn(n, 8) @ torch.randn(8, 64, generator=torch.Generator().manual_seed(1))
    return x + 0.1 * torch.randn(n, 64), (x[:, 0] > 0).long()


def pretrain(steps):
    enc, dec = encoder(), nn.Linear(320, 64)
    opt = torch.optim.AdamW([*enc.parameters(), *dec.parameters()], 1e-3)
    for _ in range(steps):
        x, _ = batch()
        drop = x * (torch.rand_like(x) > 0.3)
        loss = (dec(enc(drop)) - x).pow(2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    print("reconstruction", loss.item())
    return enc.state_dict()


def finetune(weights, steps):
    model = nn.Sequential(encoder(), nn.Linear(320, 2))
    model[0].load_state_dict(weights)
    opt = torch.optim.AdamW(model.parameters(), 5e-4)
    for _ in range(steps):
        x, y = batch()
        loss = nn.functional.cross_entropy(model(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
    return loss.item()


print("classification", finetune(pretrain(40), 50))
