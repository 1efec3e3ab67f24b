import itertools

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

torch.manual_seed(18)
torch.set_num_threads(1)


class Views(Dataset):
    """Noisy crops, made anew at each access."""

    def __init__(self, n=2400):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        base = torch.full((3, 20, 20), (index % 10) / 10)
        return base + 0.3 * torch.randn(3, 20, 20), index % 10


def main(max_steps=140):
    loader = DataLoader(Views(), batch_size=16, shuffle=True)
    stream = itertools.cycle(loader)
    net = nn.Sequential(nn.Flatten(), nn.Linear(1200, 64), nn.ReLU(), nn.Linear(64, 10))
    opt = torch.optim.Adam(net.parameters(), 1e-3)
    correct = seen = 0
    for step in range(max_steps):
        x, y = next(stream)
        logits = net(x)
        loss = nn.functional.cross_entropy(logits, y)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
        correct += (logits.argmax(1) == y).sum().item()
        seen += len(y)
        if step % 35 == 34:
            print(f"step {step} loss {loss.item():.3f} accuracy {correct / seen:.3f}")


if __name__ == "__main__":
    main()
