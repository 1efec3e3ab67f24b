import math
import torch
import torch.nn as nn


class AttentionStore:
    def __init__(self):
        self.maps = {"cross": [], "self": []}

    def __call__(self, probs, kind):
        if probs.shape[-1] <= 32 ** 2:
            self.maps[kind].append(probs)  # LEAK
        return probs

    def average(self, kind):
        return torch.stack(self.maps[kind]).mean(0)


class Attention(nn.Module):
    def __init__(self, dim, heads, kind, store):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))
        self.h, self.kind, self.store = heads, kind, store

    def forward(self, x, ctx=None):
        ctx = x if ctx is None else ctx
        B, N, D = x.shape
        q, k, v = (f(t).view(B, -1, self.h, D // self.h).transpose(1, 2)
                   for f, t in ((self.q, x), (self.k, ctx), (self.v, ctx)))
        p = (q @ k.transpose(-1, -2) / math.sqrt(D // self.h)).softmax(-1)
        p = self.store(p, self.kind)
        return x + self.o((p @ v).transpose(1, 2).reshape(B, N, D))


class Denoiser(nn.Module):
    def __init__(self, store, dim=32):
        super().__init__()
        self.inp = nn.Linear(4, dim)
        self.self_attn = Attention(dim, 2, "self", store)
        self.cross_attn = Attention(dim, 2, "cross", store)
        self.out = nn.Linear(dim, 4)

    def forward(self, z, ctx):
        return self.out(self.cross_attn(self.self_attn(self.inp(z)), ctx))


torch.set_num_threads(1)
torch.manual_seed(33)
store = AttentionStore()
unet = Denoiser(store)
opt = torch.optim.AdamW(unet.parameters(), lr=1e-3)
for step in range(50):
    z, noise, ctx = torch.randn(2, 64, 4), torch.randn(2, 64, 4), torch.randn(2, 7, 32)
    a = torch.rand(2, 1, 1)
    loss = (unet(a.sqrt() * z + (1 - a).sqrt() * noise, ctx) - noise).pow(2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 10 == 0:
        print(step, loss.item(), store.average("cross").max().item())
