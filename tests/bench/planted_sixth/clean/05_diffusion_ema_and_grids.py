import copy

import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class Unet(nn.Module):
    def __init__(self, ch=24):
        super().__init__()
        self.down = nn.Conv2d(4, ch, 3, stride=2, padding=1)
        self.mid = nn.Conv2d(ch, ch, 3, padding=1)
        self.up = nn.ConvTranspose2d(ch, 3, 4, stride=2, padding=1)

    def forward(self, x, t):
        t_map = t.view(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:])
        return self.up(F.silu(self.mid(F.silu(self.down(torch.cat([x, t_map], 1))))))


class EMA:
    def __init__(self, model, decay=0.995):
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model):
        for ema, p in zip(self.model.parameters(), model.parameters()):
            ema.lerp_(p, 1 - self.decay)


class Writer:
    def __init__(self):
        self.images = []

    def add_image(self, tag, image, step):
        self.images.append((tag, step, (image * 127.5 + 127.5).clamp(0, 255).byte().cpu().numpy().mean()))


@torch.no_grad()
def sample(model, n=16, steps=4):
    x = torch.randn(n, 3, 32, 32, device=device)
    for i in range(steps):
        t = torch.full((n,), 1 - i / steps, device=device)
        x = x - model(x, t) / steps
    return x


def main():
    model = Unet().to(device)
    ema = EMA(model)
    writer = Writer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(70):
        x0 = torch.rand(8, 3, 32, 32, device=device) * 2 - 1
        noise, t = torch.randn_like(x0), torch.rand(8, device=device)
        tt = t.view(-1, 1, 1, 1)
        loss = F.mse_loss(model((1 - tt) * x0 + tt * noise, t), noise - x0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ema.update(model)
        if step % 7 == 6:
            writer.add_image("samples", sample(ema.model), step)
    print(writer.images[-1], loss.item())


if __name__ == "__main__":
    main()
