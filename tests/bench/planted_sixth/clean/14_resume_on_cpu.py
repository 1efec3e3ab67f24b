import os
import tempfile

import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


def build():
    model = nn.Sequential(nn.Linear(64, 384), nn.GELU(), nn.Linear(384, 384), nn.GELU(), nn.Linear(384, 64)).to(device)
    return model, torch.optim.AdamW(model.parameters(), lr=1e-3)


def run(model, optimizer, steps, start=0):
    for step in range(start, start + steps):
        x = torch.randn(32, 64, device=device)
        loss = F.mse_loss(model(x), x.roll(1, dims=1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"up to step {step}: {loss.item():.4f}")
    return step + 1


def save(path, model, optimizer, step):
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, path)


def load(path, model, optimizer):
    state = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"]


def main():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "last.pt")
        model, optimizer = build()
        save(path, model, optimizer, run(model, optimizer, 30))
        del model, optimizer

        model, optimizer = build()
        step = load(path, model, optimizer)
        for _ in range(4):
            step = run(model, optimizer, 15, start=step)
            save(path, model, optimizer, step)


if __name__ == "__main__":
    main()
