import os
import tempfile

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def build():
    model = nn.Sequential(nn.Linear(100, 500), nn.ReLU(), nn.Linear(500, 300), nn.ReLU(), nn.Linear(300, 7)).to(device)
    return model, torch.optim.AdamW(model.parameters(), lr=1e-3)


def train(model, opt, start, stop):
    for step in range(start, stop):
        x = torch.randn(32, 100, device=device)
        loss = nn.functional.cross_entropy(model(x), x[:, :7].argmax(1))
        opt.zero_grad()
        loss.backward()
        opt.step()
    print("at", stop, loss.item())


def save(path, model, opt, step):
    torch.save({"model": model.state_dict(), "opt": opt.state_dict(), "step": step}, path)


def load(path, model, opt):
    checkpoint = torch.load(path, map_location="cpu")
    model.load_state_dict(checkpoint["model"])
    opt.load_state_dict(checkpoint["opt"])
    step = checkpoint["step"]
    del checkpoint
    return step


path = os.path.join(tempfile.mkdtemp(), "ckpt.pt")
model, opt = build()
train(model, opt, 0, 25)
save(path, model, opt, 25)
for part in range(3):  # three times interrupted
    del model, opt
    model, opt = build()
    step = load(path, model, opt)
    train(model, opt, step, step + 25)
    save(path, model, opt, step + 25)
