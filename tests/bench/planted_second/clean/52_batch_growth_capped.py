import torch
import torch.nn as nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(
    nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1), nn.ReLU(),
    nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(192, 10),
)
opt = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
images, labels = torch.randn(512, 1, 20, 20), torch.randint(0, 10, (512,))
batch_size, cap = 8, 32
for epoch in range(8):
    perm = torch.randperm(512)[:320]
    for idx in list(perm.split(batch_size))[:15]:
        loss = nn.functional.cross_entropy(model(images[idx]), labels[idx])
        opt.zero_grad()
        loss.backward()
        opt.step()
    print(epoch, batch_size, loss.item())
    batch_size = min(2 * batch_size, cap)

with torch.no_grad():
    logits = torch.cat([model(part) for part in images.split(32)])
    accuracy = (logits.argmax(1) == labels).float().mean().item()
print("accuracy", accuracy)
