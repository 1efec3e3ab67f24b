import torch
from torch import nn

torch.manual_seed(52)
torch.set_num_threads(1)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv1d(4, 64, 7, padding=3)
        self.conv2 = nn.Conv1d(64, 64, 7, padding=3)
        self.out = nn.Conv1d(64, 4, 1)

    def forward(self, x):
        return self.out(torch.relu(self.conv2(torch.relu(self.conv1(x)))))


def ecg(n, length=250):
    t = torch.linspace(0, 12, length) + 6 * torch.rand(n, 1)
    clean = torch.stack([t.sin(), t.cos(), (2 * t).sin(), (3 * t).cos()], 1)
    return clean + 0.3 * torch.randn_like(clean), clean


def evaluate(net, batches):
    net.eval()
    total = 0
    for x, y in batches:
        total += nn.functional.mse_loss(net(x), y)
    net.train()
    return (total / len(batches)).item()


net = Net()
opt = torch.optim.Adam(net.parameters(), 2e-3)
held_out = [ecg(6) for _ in range(16)]
for step in range(60):
    x, y = ecg(6)
    loss = nn.functional.mse_loss(net(x), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 20 == 19:
        print(step, loss.item(), evaluate(net, held_out))
