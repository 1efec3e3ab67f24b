import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

torch.manual_seed(53)
torch.set_num_threads(1)
V, D, L, H, T = 64, 96, 8, 4, 128


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(D), nn.LayerNorm(D)
        self.qkv, self.proj = nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.mlp = nn.Sequential(nn.Linear(D, 2 * D), nn.GELU(), nn.Linear(2 * D, D))

    def forward(self, x, store=None):
        b, t, _ = x.shape
        q, k, v = self.qkv(self.n1(x)).view(b, t, 3, H, D // H).permute(2, 0, 3, 1, 4)
        if store is not None:
            store.append((k.contiguous(), v.contiguous()))
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(y.transpose(1, 2).reshape(b, t, D))
        return x + self.mlp(self.n2(x))


class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.tok, self.pos = nn.Embedding(V, D), nn.Embedding(T, D)
        self.blocks = nn.ModuleList(Block() for _ in range(L))
        self.head = nn.Linear(D, V)

    def forward(self, ids):
        x = self.tok(ids) + self.pos(torch.arange(ids.size(1)))
        cache = None if self.training else []
        for b in self.blocks:
            x = checkpoint(b, x, use_reentrant=False) if self.training else b(x, cache)
        return self.head(x), cache


def rows(n):
    return (torch.randint(V, (n, 1)) + torch.arange(T + 1) * 3) % V


def loss_of(model, ids):
    logits, _ = model(ids[:, :-1])
    return nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


model = GPT()
opt = torch.optim.SGD(model.parameters(), 0.05)
for step in range(16):
    loss = loss_of(model, rows(6))
    opt.zero_grad(set_to_none=True)
    loss.backward()
    opt.step()
    if step % 8 == 7:
        model.eval()
        with torch.no_grad():
            print(step, loss.item(), "val", loss_of(model, rows(10)).item())
        model.train()
