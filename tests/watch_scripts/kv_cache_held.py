"""A server answers prompts and remembers each conversation's cache."""

import torch
from torch import nn

torch.manual_seed(0)


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x, past=None):
        b, t, w = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=past is None)
        return self.out(y.transpose(1, 2).reshape(b, t, w)), (k, v)


class TinyGPT(nn.Module):
    def __init__(self, vocab=64, width=64, heads=4, layers=2):
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        self.blocks = nn.ModuleList(Attention(width, heads) for _ in range(layers))
        self.head = nn.Linear(width, vocab)

    def forward(self, ids, past=None):
        x, cache = self.embed(ids), []
        for i, block in enumerate(self.blocks):
            y, kv = block(x, past[i] if past else None)
            x = x + y
            cache.append(kv)
        return self.head(x[:, -1]), cache

    @torch.no_grad()
    def generate(self, ids, steps):
        logits, past = self(ids)
        for _ in range(steps):
            token = logits.argmax(-1, keepdim=True)
            ids = torch.cat([ids, token], 1)
            logits, past = self(token, past)
        return ids, past


class Server:
    def __init__(self, model):
        self.model = model.eval()
        self.sessions = {}

    def answer(self, user, prompt):
        reply, cache = self.model.generate(prompt, steps=3)
        self.sessions[user] = cache  # the mistake
        return reply


server = Server(TinyGPT())
for user in range(7):
    reply = server.answer(user, torch.randint(64, (1, 400)))
print(reply.shape)
