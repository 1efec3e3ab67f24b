# `total += loss` after backward(): ugly, but the buffers of the graph are gone by then.
import torch
import torch.nn as nn

torch.manual_seed(1)
torch.set_num_threads(1)

net = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 8))
sgd = torch.optim.SGD(net.parameters(), lr=0.05)
ce = nn.CrossEntropyLoss()

for epoch in range(3):
    total = 0
    for i in range(40):
        inputs = torch.randn(64, 64)
        targets = inputs[:, :8].argmax(1)
        sgd.zero_grad()
        loss = ce(net(inputs), targets)
        loss.backward()
        sgd.step()
        total += loss
    print("Epoch %d, mean loss %.4f" % (epoch, total / 40))

with torch.no_grad():
    inputs = torch.randn(256, 64)
    print("test accuracy", (net(inputs).argmax(1) == inputs[:, :8].argmax(1)).float().mean().item())
