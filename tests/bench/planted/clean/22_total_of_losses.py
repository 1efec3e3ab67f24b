import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(21)
model = nn.Sequential(nn.Linear(32, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 8))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
criterion = nn.CrossEntropyLoss()

epochs, per_epoch = 4, 25
for epoch in range(epochs):
    total = 0
    seen = 0
    for i in range(per_epoch):
        x = torch.randn(64, 32)
        y = x[:, :8].argmax(1)
        optimizer.zero_grad()
        out = model(x)
        loss = criterion(out, y)
        loss.backward()
        optimizer.step()
        total = total + loss
        seen += 1
    mean = float(total.detach()) / seen
    print("epoch", epoch, "mean loss", round(mean, 4))
