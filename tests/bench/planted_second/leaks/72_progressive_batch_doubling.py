import torch
import torch.nn as nn

torch.manual_seed(0)
torch.set_num_threads(1)

# "Don't decay the learning rate, increase the batch size": double it every epoch
model = nn.Sequential(
    nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1), nn.ReLU(),
    nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(192, 10),
)
opt = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
images = torch.randn(512, 1, 20, 20)
labels = torch.randint(0, 10, (512,))

batch_size = 8
for epoch in range(6):
    perm = torch.randperm(512)[: batch_size * 4]
    for idx in perm.split(batch_size):
        loss = nn.functional.cross_entropy(model(images[idx]), labels[idx])  # LEAK
        opt.zero_grad()
        loss.backward()
        opt.step()
    print(f"epoch {epoch}: batch {batch_size} loss {loss.item():.4f}")
    batch_size *= 2
