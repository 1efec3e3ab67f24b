import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(152)
torch.set_num_threads(1)


def main():
    accelerator = Accelerator(gradient_accumulation_steps=4, cpu=True)
    x = torch.randn(1600, 60)
    loader = DataLoader(TensorDataset(x, x[:, :6].argmax(1)), batch_size=16, shuffle=True)
    model = nn.Sequential(nn.Linear(60, 128), nn.ReLU(), nn.Linear(128, 6))
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    for epoch in range(2):
        running = torch.zeros(())
        for step, (rows, labels) in enumerate(loader):
            with accelerator.accumulate(model):
                loss = nn.functional.cross_entropy(model(rows), labels)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
            running += loss.detach()
        accelerator.print(epoch, (running / (step + 1)).item())


main()
