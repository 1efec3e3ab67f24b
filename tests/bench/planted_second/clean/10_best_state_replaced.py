import copy

import torch
import torch.nn as nn
import torch.nn.functional as F


class EarlyStopping:
    def __init__(self, patience=12):
        self.patience, self.best, self.bad = patience, float("inf"), 0
        self.state = None

    def __call__(self, score, model):
        if score < self.best:
            self.best, self.bad = score, 0
            self.state = copy.deepcopy(model.state_dict())
        else:
            self.bad += 1
        return self.bad >= self.patience


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = nn.Sequential(nn.Linear(40, 160), nn.ReLU(), nn.Linear(160, 160), nn.ReLU(), nn.Linear(160, 1)).to(device)
    opt = torch.optim.Adam(model.parameters(), lr=3e-4)
    w = torch.randn(40, 1, device=device) / 6
    vx = torch.randn(200, 40, device=device)
    stop = EarlyStopping()
    for epoch in range(30):
        model.train()
        for _ in range(5):
            x = torch.randn(64, 40, device=device)
            loss = F.mse_loss(model(x), torch.sin(x @ w))
            opt.zero_grad()
            loss.backward()
            opt.step()
        model.eval()
        with torch.no_grad():
            val = F.mse_loss(model(vx), torch.sin(vx @ w)).item()
        if stop(val, model):
            print("stopped at", epoch)
            break
    model.load_state_dict(stop.state)
    print("best", stop.best)


main()
