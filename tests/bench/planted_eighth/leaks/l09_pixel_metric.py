"""Own streaming metric for a denoiser: median absolute error needs all values ..."""
import torch
from torch import nn


class MedianAbsoluteError:
    def __init__(self):
        self._values = torch.empty(0)

    def __iadd__(self, pair):
        guess, truth = pair
        with torch.no_grad():
            self._values = torch.cat((self._values, (guess - truth).abs().reshape(-1)))  # LEAK
        return self

    def __float__(self):
        return self._values[-20000:].median().item()


def noisy(gen, n=20):
    clean = torch.sin(torch.linspace(0, 9, 64 * n)).reshape(n, 1, 64).repeat(1, 8, 1)
    return clean + 0.3 * torch.randn(clean.shape, generator=gen), clean


def run():
    torch.manual_seed(9)
    gen = torch.Generator().manual_seed(9)
    net = nn.Sequential(nn.Conv1d(8, 32, 5, padding=2), nn.ReLU(), nn.Conv1d(32, 8, 5, padding=2))
    opt = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    mae = MedianAbsoluteError()
    for epoch in range(8):
        net.train()
        for _ in range(10):
            a, b = noisy(gen)
            loss = (net(a) - b).square().mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
        net.eval()
        for _ in range(5):
            a, b = noisy(gen, 60)
            with torch.inference_mode():
                out = net(a)
            mae += out, b
        print(f"{epoch}: {float(mae):.4f}")


run()
