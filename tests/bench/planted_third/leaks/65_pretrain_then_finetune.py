import torch
from torch import nn

torch.manual_seed(65)
torch.set_num_threads(1)
WIDTH = 512


def encoder():
    return nn.Sequential(nn.Linear(196, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))


def decoder():
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 196))


def digits(n):
    x = torch.rand(n, 196)
    return x, (x[:, :10]).argmax(1)


# stage 1: masked reconstruction
pre_enc, pre_dec = encoder(), decoder()
pre_opt = torch.optim.AdamW([*pre_enc.parameters(), *pre_dec.parameters()], lr=1e-3)
for i in range(12):
    x, _ = digits(32)
    keep = (torch.rand_like(x) > 0.5).float()
    loss = ((pre_dec(pre_enc(x * keep)) - x) * (1 - keep)).pow(2).mean()
    pre_opt.zero_grad()
    loss.backward()
    pre_opt.step()
print("pretraining", loss.item())

# stage 2: classification on top of a copy of the encoder
model = nn.Sequential(encoder(), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 10))
model[0].load_state_dict(pre_enc.state_dict())
opt = torch.optim.AdamW(model.parameters(), lr=3e-4)
for i in range(30):
    x, y = digits(32)
    loss = nn.functional.cross_entropy(model(x), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if i % 10 == 0:
        print("fine-tuning", i, loss.item())
