import io

import torch
from torch import nn


def network():
    return nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 256, 3, padding=1), nn.ReLU(),
                         nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 10))


def snapshot_of_last_night():
    net = network()
    opt = torch.optim.Adam(net.parameters(), lr=1e-3)
    net(torch.rand(1, 3, 6, 6)).sum().backward()
    opt.step()
    f = io.BytesIO()
    torch.save({"weights": net.state_dict(), "optim": opt.state_dict(), "cfg": {"lr": 5e-4, "name": "night"}}, f)
    f.seek(0)
    return f


class FineTuner:
    def __init__(self, file, device):
        self.device = device
        self.snapshot = torch.load(file, map_location=device)
        self.net = network().to(device)
        self.net.load_state_dict(self.snapshot["weights"])
        self.opt = torch.optim.Adam(self.net.parameters(), lr=self.snapshot["cfg"]["lr"])
        self.opt.load_state_dict(self.snapshot["optim"])

    def fit(self, steps):
        for i in range(steps):
            x = torch.rand(4, 3, 6, 6, device=self.device)
            y = (x.mean((1, 2, 3)) * 10).long().clamp(0, 9)
            loss = nn.functional.cross_entropy(self.net(x), y)
            self.opt.zero_grad()
            loss.backward()
            self.opt.step()
            if i % 5 == 0:
                print(self.snapshot["cfg"]["name"], i, loss.item())


if __name__ == "__main__":
    torch.manual_seed(36)
    torch.set_num_threads(1)
    where = "cuda" if torch.cuda.is_available() else "cpu"
    FineTuner(snapshot_of_last_night(), where).fit(16)
