import os
import tempfile

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


def clone_tree(obj):
    if torch.is_tensor(obj):
        return obj.detach().clone()
    if isinstance(obj, dict):
        return {k: clone_tree(v) for k, v in obj.items()}
    if isinstance(obj, (list, tuple)):
        return type(obj)(clone_tree(v) for v in obj)
    return obj


class AtomicSaver:
    """A consistent snapshot first, then the slow write."""

    def __init__(self, folder):
        self.folder = folder

    def save(self, step, model, optimizer):
        snapshot = clone_tree({"model": model.state_dict(), "optim": optimizer.state_dict(), "step": step})  # LEAK
        tmp = os.path.join(self.folder, "tmp.pt")
        torch.save(snapshot, tmp)
        os.replace(tmp, os.path.join(self.folder, "last.pt"))


with tempfile.TemporaryDirectory() as folder:
    saver = AtomicSaver(folder)
    layers = [m for _ in range(30) for m in (nn.Linear(200, 200), nn.SiLU())]
    model = nn.Sequential(*layers, nn.Linear(200, 4)).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4, foreach=False)
    for step in range(1, 41):
        x = torch.randn(16, 200, device=device)
        loss = nn.functional.mse_loss(model(x), x[:, :4])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            saver.save(step, model, optimizer)
            print("saved at", step, loss.item())
