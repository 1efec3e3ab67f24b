import torch
from torch import nn

torch.manual_seed(12)
torch.set_num_threads(1)


class MaskFactory:
    def __init__(self):
        self._masks = {}

    def __call__(self, lengths):
        key = tuple(lengths.tolist())
        if key not in self._masks:
            width = max(key)
            rows = torch.arange(width)[None] < lengths[:, None]
            causal = torch.ones(width, width, dtype=torch.bool).tril()
            self._masks[key] = rows[:, None, :] & causal
        return self._masks[key]


class Block(nn.Module):
    def __init__(self, dim=32):
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x, mask):
        q, k, v = self.qkv(x).chunk(3, -1)
        return x + self.out(nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask))


emb, block, head, masks = nn.Embedding(90, 32), Block(), nn.Linear(32, 90), MaskFactory()
params = [p for m in (emb, block, head) for p in m.parameters()]
opt = torch.optim.Adam(params, 2e-3)
for step in range(70):
    lengths = torch.randint(20, 56, (8,))
    ids = torch.randint(90, (8, int(lengths.max())))
    logits = head(block(emb(ids), masks(lengths)))
    loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 20 == 0:
        print(step, round(loss.item(), 3))
