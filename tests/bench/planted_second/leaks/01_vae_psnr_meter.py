"""Small VAE on synthetic 16x16 images. Tracks ELBO and PSNR with the usual AverageMeter."""
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(3)
torch.set_num_threads(1)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class AverageMeter(object):
    """Computes and stores the average and current value"""

    def __init__(self, name):
        self.name = name
        self.reset()

    def reset(self):
        self.val = 0
        self.sum = 0
        self.count = 0

    def update(self, val, n=1):
        self.val = val
        self.sum += val * n  # LEAK
        self.count += n

    @property
    def avg(self):
        return self.sum / self.count


class VAE(nn.Module):
    def __init__(self, zdim=16):
        super().__init__()
        self.enc = nn.Sequential(nn.Flatten(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 2 * zdim))
        self.dec = nn.Sequential(nn.Linear(zdim, 128), nn.ReLU(), nn.Linear(128, 256))

    def forward(self, x):
        mu, logvar = self.enc(x).chunk(2, dim=1)
        z = mu + torch.randn_like(mu) * (0.5 * logvar).exp()
        return self.dec(z), mu, logvar


model = VAE().to(device)
opt = torch.optim.Adam(model.parameters(), lr=1e-3)
elbo_meter, psnr_meter = AverageMeter("elbo"), AverageMeter("psnr")

for it in range(120):
    x = torch.rand(96, 1, 16, 16, device=device)
    recon, mu, logvar = model(x)
    rec = F.binary_cross_entropy_with_logits(recon, x.flatten(1), reduction="sum") / x.size(0)
    kl = -0.5 * (1 + logvar - mu.pow(2) - logvar.exp()).sum(1).mean()
    loss = rec + kl
    opt.zero_grad()
    loss.backward()
    opt.step()

    psnr = -10 * torch.log10(F.mse_loss(torch.sigmoid(recon), x.flatten(1)))
    elbo_meter.update(loss.item(), x.size(0))
    psnr_meter.update(psnr, x.size(0))
    if it % 40 == 39:
        print(f"[{it}] elbo {elbo_meter.avg:.2f} psnr {psnr_meter.avg:.2f}")
