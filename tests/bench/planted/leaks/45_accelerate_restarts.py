import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def get_data(seed):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(64, 30, generator=g)
    return TensorDataset(x, (x.sum(1) > 0).long())


def training_function(accelerator, lr, seed):
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(30, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    loader = DataLoader(get_data(seed), batch_size=16)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)  # LEAK
    model.train()
    for x, y in loader:
        with accelerator.accumulate(model):
            loss = nn.functional.cross_entropy(model(x), y)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
    return loss.item()


def main():
    accelerator = Accelerator(cpu=True)
    results = {}
    for seed in range(5):
        for lr in (1e-2, 3e-3, 1e-3, 3e-4):
            results[seed, lr] = training_function(accelerator, lr, seed)
    best = min(results, key=results.get)
    accelerator.print("best", best, results[best])


if __name__ == "__main__":
    main()
