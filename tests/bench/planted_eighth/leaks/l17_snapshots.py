"""Keeps the weights of each epoch for a later average over 'the best stretch'."""
import copy
import torch
from torch import nn

torch.manual_seed(17)
net = nn.Sequential(nn.Embedding(500, 120), nn.Flatten(), nn.Linear(120 * 8, 128), nn.ReLU(), nn.Linear(128, 500))
opt = torch.optim.Adagrad(net.parameters(), 0.02)
history = {}


def on_epoch_end(epoch, score, model):
    history[epoch] = {"score": score, "weights": copy.deepcopy(model.state_dict())}  # LEAK


callbacks = [on_epoch_end]
ids = torch.randint(0, 500, (1024, 9))
for epoch in range(18):
    total = 0.0
    for rows in ids.split(128):
        loss = nn.functional.cross_entropy(net(rows[:, :8]), rows[:, 8])
        opt.zero_grad()
        loss.backward()
        opt.step()
        total += loss.item()
    for cb in callbacks:
        cb(epoch, total / 8, net)
    print(epoch, f"{total / 8:.4f}")
best = min(history, key=lambda e: history[e]["score"])
print("best", best)
