import torch
from torch import nn

torch.manual_seed(31)
torch.set_num_threads(1)
ROUNDS, DIM = 20, 256


class DeepCluster:
    def __init__(self):
        self.encoder = nn.Sequential(nn.Linear(60, DIM), nn.ReLU(), nn.Linear(DIM, DIM), nn.ReLU())
        self.head = None
        self.opt = torch.optim.Adam(self.encoder.parameters(), 5e-4)

    def new_head(self, classes):
        self.head = nn.Linear(DIM, classes)
        self.opt.add_param_group({"params": self.head.parameters(), "lr": 2e-3})

    @torch.no_grad()
    def assign(self, x, k):
        z = self.encoder(x)
        centres = z[torch.randperm(len(z))[:k]]
        for _ in range(4):
            label = torch.cdist(z, centres).argmin(1)
            for c in range(k):
                if (label == c).any():
                    centres[c] = z[label == c].mean(0)
        return label

    def train_round(self, x, label, steps=4):
        for idx in torch.randperm(len(x))[: steps * 64].split(64):
            loss = nn.functional.cross_entropy(self.head(self.encoder(x[idx])), label[idx])
            self.opt.zero_grad()
            loss.backward()
            self.opt.step()
        return loss.item()


data = torch.randn(600, 60) + torch.randint(4, (600, 1)) * 1.5
dc = DeepCluster()
for r in range(ROUNDS):
    k = 150
    label = dc.assign(data, k)
    dc.new_head(k)
    value = dc.train_round(data, label)
    if r % 5 == 0:
        print("round", r, round(value, 3))
