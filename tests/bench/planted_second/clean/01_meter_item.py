import torch
import torch.nn as nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class AverageMeter:
    def __init__(self):
        self.values = []

    def update(self, value, n=1):
        if torch.is_tensor(value):
            value = value.item()
        self.values.append(value)

    @property
    def avg(self):
        return sum(self.values) / len(self.values)


def psnr(a, b):
    return -10 * torch.log10((a - b).pow(2).mean())


denoiser = nn.Sequential(nn.Conv2d(1, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 1, 3, padding=1)).to(device)
opt = torch.optim.Adam(denoiser.parameters(), lr=2e-3)
loss_meter, psnr_meter = AverageMeter(), AverageMeter()
for it in range(120):
    clean = torch.rand(8, 1, 24, 24, device=device)
    noisy = clean + 0.1 * torch.randn_like(clean)
    out = denoiser(noisy)
    loss = nn.functional.mse_loss(out, clean)
    opt.zero_grad()
    loss.backward()
    opt.step()
    loss_meter.update(loss)
    psnr_meter.update(psnr(out, clean))
    if it % 40 == 39:
        print(it, loss_meter.avg, psnr_meter.avg)
