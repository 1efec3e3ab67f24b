import itertools

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def dataset(n=96):
    g = torch.Generator().manual_seed(63)
    x = torch.randn(n, 64, generator=g)
    return TensorDataset(x, (x[:, :10]).argmax(1))


def trial(accelerator, width, lr, data):
    model = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))
    opt = torch.optim.AdamW(model.parameters(), lr=lr)
    loader = DataLoader(data, batch_size=16, shuffle=True)
    model, opt, loader = accelerator.prepare(model, opt, loader)
    for x, y in loader:
        loss = nn.functional.cross_entropy(model(x), y)
        accelerator.backward(loss)
        opt.step()
        opt.zero_grad()
    return loss.item()


def main():
    torch.manual_seed(63)
    torch.set_num_threads(1)
    accelerator = Accelerator()
    data = dataset()
    scores = {}
    for width, lr, seed in itertools.product((192, 256), (1e-3, 3e-4), range(4)):
        torch.manual_seed(seed)
        scores[width, lr, seed] = trial(accelerator, width, lr, data)
        accelerator.print(width, lr, seed, round(scores[width, lr, seed], 3))
    print("best", min(scores, key=scores.get))


main()
