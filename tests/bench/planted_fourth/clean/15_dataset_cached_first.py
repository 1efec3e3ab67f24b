import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

torch.manual_seed(115)
torch.set_num_threads(1)


class InMemory(Dataset):
    def __init__(self, n=300, frames=4000):
        self.waves = []
        t = np.arange(frames, dtype=np.float32)
        for i in range(n):
            self.waves.append(torch.from_numpy(np.sin(t * (0.01 + 0.002 * (i % 7)))))
        self.labels = [i % 7 for i in range(n)]

    def __len__(self):
        return len(self.waves)

    def __getitem__(self, i):
        return self.waves[i] + 0.1 * torch.randn(len(self.waves[i])), self.labels[i]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv1d(1, 12, 64, stride=16), nn.Linear(12, 7)

    def forward(self, x):
        return self.fc(torch.relu(self.conv(x[:, None])).amax(-1))


data = InMemory()
loader = DataLoader(data, batch_size=20, shuffle=True)
net = Net()
opt = torch.optim.Adam(net.parameters(), 5e-3)
for epoch in range(4):
    right = 0
    for x, y in loader:
        logits = net(x)
        loss = nn.functional.cross_entropy(logits, y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        right += (logits.argmax(1) == y).sum().item()
    print(epoch, right / len(data))
