import itertools

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def dataset(n=96):
    x = torch.randn(n, 64, generator=torch.Generator().manual_seed(145))
    return TensorDataset(x, (x[:, :10]).argmax(1))


def trial(accelerator, width, lr, data):
    model = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))
    opt = torch.optim.AdamW(model.parameters(), lr=lr)
    model, opt, loader = accelerator.prepare(model, opt, DataLoader(data, batch_size=16, shuffle=True))
    for x, y in loader:
        loss = nn.functional.cross_entropy(model(x), y)
        accelerator.backward(loss)
        opt.step()
        opt.zero_grad()
    return loss.item()


def main():
    torch.manual_seed(145)
    torch.set_num_threads(1)
    accelerator = Accelerator()
    data = dataset()
    scores = {}
    for width, lr, seed in itertools.product((192, 256), (1e-3, 3e-4), range(2)):
        torch.manual_seed(seed)
        scores[width, lr, seed] = trial(accelerator, width, lr, data)
        accelerator.free_memory()
    print("best", min(scores, key=scores.get), len(scores))


main()
