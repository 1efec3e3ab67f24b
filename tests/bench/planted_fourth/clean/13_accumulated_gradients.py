import torch
from torch import nn

torch.manual_seed(113)
torch.set_num_threads(1)
ACCUMULATE = 4

model = nn.Sequential(
    nn.Conv1d(4, 32, 7, padding=3), nn.ReLU(), nn.Conv1d(32, 32, 7, padding=3, stride=2), nn.ReLU(),
    nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, 3),
)
opt = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=1e-4)


def micro(n=6):
    y = torch.randint(3, (n,))
    t = torch.arange(200) / 200
    wave = torch.sin(2 * 3.14159 * (y[:, None] + 2) * t)
    return wave[:, None] + 0.3 * torch.randn(n, 4, 200), y


total = torch.zeros(())
history = []
for i in range(160):
    x, y = micro()
    loss = nn.functional.cross_entropy(model(x), y)
    (loss / ACCUMULATE).backward()
    total += loss.detach()
    if (i + 1) % ACCUMULATE == 0:
        norm = nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        opt.step()
        opt.zero_grad()
        history.append((total.item() / ACCUMULATE, norm.item()))
        total.zero_()
print(history[0], history[-1])
