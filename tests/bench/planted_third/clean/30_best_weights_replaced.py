import torch
from torch import nn

torch.manual_seed(130)
torch.set_num_threads(1)
dev = torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")


class EarlyStopping:
    def __init__(self, patience):
        self.patience, self.best, self.bad = patience, float("inf"), 0
        self.weights = None

    def step(self, value, model):
        if value < self.best:
            self.best, self.bad = value, 0
            self.weights = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
        else:
            self.bad += 1
        return self.bad >= self.patience


def mlp(width=192):
    return nn.Sequential(nn.Linear(64, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 64))


model = mlp().to(dev)
opt = torch.optim.AdamW(model.parameters(), lr=3e-4)
stop = EarlyStopping(patience=4)
val = torch.randn(64, 64, device=dev)
for epoch in range(15):
    for _ in range(8):
        x = torch.randn(32, 64, device=dev)
        loss = (model(x) - x.roll(1, 1)).pow(2).mean()
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
    with torch.no_grad():
        score = (model(val) - val.roll(1, 1)).pow(2).mean().item()
    if stop.step(score, model):
        break
    if epoch % 5 == 0:
        print(epoch, loss.item(), score)
model.load_state_dict(stop.weights)
print("best", stop.best)
