import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def data(n):
    x = torch.randn(n, 40)
    return TensorDataset(x, x[:, :4].argmax(1))


def evaluate(accelerator, model, loader):
    model.eval()
    right = total = 0
    with torch.no_grad():
        for x, y in loader:
            pred, y = accelerator.gather_for_metrics((model(x).argmax(1), y))
            right += (pred == y).sum().item()
            total += len(y)
    model.train()
    return right / total


def main():
    torch.manual_seed(150)
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = nn.Sequential(nn.Linear(40, 200), nn.GELU(), nn.Linear(200, 200), nn.GELU(), nn.Linear(200, 4))
    opt = torch.optim.AdamW(model.parameters(), 2e-3)
    train, valid = DataLoader(data(480), 24, shuffle=True), DataLoader(data(600), 120)
    model, opt, train, valid = accelerator.prepare(model, opt, train, valid)
    history = [evaluate(accelerator, model, valid)]
    for epoch in range(4):
        for x, y in train:
            with accelerator.accumulate(model):
                accelerator.backward(nn.functional.cross_entropy(model(x), y))
                opt.step()
                opt.zero_grad()
        history.append(evaluate(accelerator, model, valid))
    accelerator.print(history)


main()
