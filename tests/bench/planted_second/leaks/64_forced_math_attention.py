import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

torch.manual_seed(0)
torch.set_num_threads(1)


class SelfAttention(nn.Module):
    def __init__(self, d=64, heads=8):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(d, 3 * d), nn.Linear(d, d)

    def forward(self, x):
        b, n, d = x.shape
        q, k, v = (t.view(b, n, self.heads, -1).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        with sdpa_kernel(SDPBackend.MATH):  # the others are not deterministic
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # LEAK
        return self.proj(y.transpose(1, 2).reshape(b, n, d))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(64, 64)
        self.attn = nn.ModuleList(SelfAttention() for _ in range(2))
        self.out = nn.Linear(64, 64)

    def forward(self, ids):
        x = self.emb(ids)
        for a in self.attn:
            x = x + a(x)
        return self.out(x)


model = Model()
opt = torch.optim.Adam(model.parameters(), lr=1e-3)
for step in range(8):
    ids = torch.randint(0, 64, (1, 641))
    loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
    opt.zero_grad()
    loss.backward()
    opt.step()
    print(step, loss.item())
