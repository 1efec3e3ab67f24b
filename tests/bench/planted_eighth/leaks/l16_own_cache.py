"""A hand-written decoder whose attention keeps keys and values for sampling."""
import torch
from torch import nn
import torch.nn.functional as F

torch.manual_seed(16)


class Attend(nn.Module):
    def __init__(self, d, h):
        super().__init__()
        self.qkv, self.o, self.h = nn.Linear(d, 3 * d), nn.Linear(d, d), h
        self.k_past = self.v_past = None

    def forward(self, x, sampling=False):
        b, t, d = x.shape
        q, k, v = (z.view(b, t, self.h, -1).transpose(1, 2) for z in self.qkv(x).chunk(3, -1))
        if sampling:
            if self.k_past is not None:
                k = torch.cat([self.k_past, k], 2)
                v = torch.cat([self.v_past, v], 2)
            self.k_past, self.v_past = k, v  # LEAK
        y = F.scaled_dot_product_attention(q, k, v, is_causal=not sampling)
        return self.o(y.transpose(1, 2).reshape(b, t, d))


class Decoder(nn.Module):
    def __init__(self, vocab=60, d=64, layers=2):
        super().__init__()
        self.e = nn.Embedding(vocab, d)
        self.blocks = nn.ModuleList(Attend(d, 4) for _ in range(layers))
        self.lm = nn.Linear(d, vocab)

    def forward(self, ids, sampling=False):
        x = self.e(ids)
        for b in self.blocks:
            x = x + b(x, sampling)
        return self.lm(x)

    @torch.no_grad()
    def sample(self, n, rows=16):
        tok = torch.zeros(rows, 1, dtype=torch.long)
        out = []
        for _ in range(n):
            tok = self(tok, sampling=True)[:, -1:].argmax(-1)
            out.append(tok)
        return torch.cat(out, 1)


net = Decoder()
opt = torch.optim.Adam(net.parameters(), 3e-3)
for epoch in range(16):
    for _ in range(5):
        s = torch.arange(33).add(torch.randint(0, 60, (8, 1))) % 60
        loss = F.cross_entropy(net(s[:, :-1]).flatten(0, 1), s[:, 1:].flatten())
        opt.zero_grad()
        loss.backward()
        opt.step()
    text = net.sample(12)
    print(epoch, f"{loss.item():.3f}", text[0, :6].tolist())
