import traceback

import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class NonFiniteLoss(ArithmeticError):
    def __init__(self, step, value):
        super().__init__(f"step {step}: loss {value}")


class Denoiser(nn.Module):
    def __init__(self, ch=24):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, ch, 3, padding=1), nn.ReLU(), nn.Conv2d(ch, ch, 3, padding=1), nn.ReLU(), nn.Conv2d(ch, 1, 1)
        )

    def forward(self, x):
        return x - self.net(x)


class Runner:
    def __init__(self):
        self.model = Denoiser().to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.skipped, self.last_error = [], None

    def step(self, i):
        clean = torch.rand(6, 1, 56, 56, device=device)
        noisy = clean + 0.1 * torch.randn_like(clean)
        if i % 6 == 1:
            noisy[0, 0, 0, 0] = float("inf")
        loss = F.mse_loss(self.model(noisy), clean)
        if not torch.isfinite(loss):
            raise NonFiniteLoss(i, loss.item())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def run(self, steps):
        for i in range(steps):
            try:
                loss = self.step(i)
            except NonFiniteLoss as err:
                self.skipped.append("".join(traceback.format_exception_only(err)).strip())
                self.last_error = err.with_traceback(None)
                continue
            if i % 20 == 0:
                print(i, loss)
        print(len(self.skipped), "skipped, last:", self.last_error)


if __name__ == "__main__":
    Runner().run(80)
