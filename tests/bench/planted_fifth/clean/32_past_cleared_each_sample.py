import torch
from torch import nn

torch.manual_seed(132)
torch.set_num_threads(1)
V, D, H = 60, 64, 4


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.proj, self.past = nn.Linear(D, 3 * D), nn.Linear(D, D), None

    def forward(self, x, step=False):
        q, k, v = (t.unflatten(-1, (H, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        if step:
            if self.past is not None:
                k, v = torch.cat([self.past[0], k], 2), torch.cat([self.past[1], v], 2)
            self.past = (k, v)
        out = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=not step)
        return self.proj(out.transpose(1, 2).flatten(2))


emb, att, head = nn.Embedding(V, D), Attention(), nn.Linear(D, V)


@torch.no_grad()
def sample(n=8, length=12):
    ids = torch.randint(V, (n, 1))
    try:
        for _ in range(length):
            logits = head(att(emb(ids[:, -1:]), step=True))[:, -1]
            ids = torch.cat([ids, torch.multinomial(logits.softmax(-1), 1)], 1)
    finally:
        att.past = None
    return ids


opt = torch.optim.AdamW([p for m in (emb, att, head) for p in m.parameters()], 2e-3)
for step in range(80):
    ids = (torch.randint(V, (16, 1)) + torch.arange(20)) % V
    loss = nn.functional.cross_entropy(head(att(emb(ids[:, :-1]))).flatten(0, 1), ids[:, 1:].flatten())
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 4 == 3:
        text = sample()
print(loss.item(), text[0].tolist())
