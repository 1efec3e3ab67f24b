"""training_step returns its outputs, and the end of the epoch wants all of them."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)


class Module(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 200))
        self.outputs = []

    def training_step(self, batch):
        x, y = batch
        logits = self.net(x)
        self.outputs.append({"logits": logits.detach(), "y": y})  # the mistake
        return nn.functional.cross_entropy(logits, y)

    def on_epoch_end(self):
        logits = torch.cat([o["logits"] for o in self.outputs])
        print("accuracy", (logits.argmax(-1) == torch.cat([o["y"] for o in self.outputs])).float().mean().item())
        self.outputs.clear()


def fit(module, loader, epochs):
    optimizer = torch.optim.Adam(module.parameters())
    for _ in range(epochs):
        for batch in loader:
            loss = module.training_step(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        module.on_epoch_end()


data = TensorDataset(torch.randn(768, 20), torch.randint(200, (768,)))
fit(Module(), DataLoader(data, batch_size=64, shuffle=True), epochs=3)
