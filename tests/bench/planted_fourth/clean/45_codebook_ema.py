import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(145)
torch.set_num_threads(1)


class Codebook(nn.Module):
    def __init__(self, codes=256, dim=32, decay=0.95):
        super().__init__()
        self.register_buffer("code", torch.randn(codes, dim))
        self.register_buffer("count", torch.ones(codes))
        self.register_buffer("total", self.code.clone())
        self.decay = decay

    @torch.no_grad()
    def update(self, z, idx):
        hot = F.one_hot(idx, len(self.code)).float()
        self.count.lerp_(hot.sum(0), 1 - self.decay)
        self.total.lerp_(hot.T @ z, 1 - self.decay)
        dead = self.count < 0.05
        self.total[dead] = z[torch.randint(len(z), (int(dead.sum()),))]
        self.count[dead] = 1.0
        self.code.copy_(self.total / self.count[:, None])

    def forward(self, z):
        idx = torch.cdist(z.detach(), self.code).argmin(1)
        q = self.code[idx]
        if self.training:
            self.update(z.detach(), idx)
        return z + (q - z).detach(), F.mse_loss(z, q), idx


enc, book, dec = nn.Linear(100, 32), Codebook(), nn.Sequential(nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 100))
opt = torch.optim.Adam([*enc.parameters(), *dec.parameters()], 2e-3)
basis, usage = torch.randn(6, 100), []
for step in range(70):
    x = torch.randn(384, 6).sign() @ basis
    q, commit, idx = book(enc(x))
    loss = F.mse_loss(dec(q), x) + 0.25 * commit
    opt.zero_grad()
    loss.backward()
    opt.step()
    usage.append(idx.unique().numel())
print(loss.item(), usage[0], usage[-1])
