"""An attention layer that keeps keys and values for streaming is never told that a new sequence begins."""

import torch
from torch import nn

torch.manual_seed(0)


class StreamingAttention(nn.Module):
    def __init__(self, width=48, heads=3):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.past_k = self.past_v = None

    def split(self, x):
        return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def forward(self, x):
        q, k, v = self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))
        if not self.training:
            if self.past_k is not None:
                k, v = torch.cat([self.past_k, k], 2), torch.cat([self.past_v, v], 2)
            self.past_k, self.past_v = k, v  # the mistake
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.o(y.transpose(1, 2).flatten(2))


class LM(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.attention, self.head = nn.Embedding(40, 48), StreamingAttention(), nn.Linear(48, 40)

    def forward(self, ids):
        return self.head(self.attention(self.embed(ids)))


@torch.no_grad()
def sample(model, ids, n):
    model.eval()
    logits = model(ids)
    for _ in range(n):
        token = logits[:, -1:].argmax(-1)
        logits = model(token)
    model.train()


model = LM()
opt = torch.optim.AdamW(model.parameters())
for _step in range(24):
    ids = torch.randint(40, (8, 24))
    loss = nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
    opt.zero_grad()
    loss.backward()
    opt.step()
    sample(model, ids[:, :20], 4)
