import numpy as np
import torch
from torch import nn

torch.manual_seed(38)
torch.set_num_threads(1)
V, T = 512, 32


class TinyLM(nn.Module):
    def __init__(self, d=64):
        super().__init__()
        self.tok = nn.Embedding(V, d)
        self.pos = nn.Parameter(torch.zeros(T, d))
        self.block = nn.TransformerEncoderLayer(d, 4, 128, dropout=0.0, batch_first=True, norm_first=True)
        self.head = nn.Linear(d, V)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(T))

    def forward(self, x):
        n = x.size(1)
        h = self.block(self.tok(x) + self.pos[:n], src_mask=self.mask[:n, :n], is_causal=True)
        return self.head(h)


def corpus(domain, n):
    start = torch.randint(V, (n, 1))
    return (start + torch.arange(T + 1) * (domain + 1)) % V


def evaluate(model, domains):
    logits, labels = {}, {}
    model.eval()
    with torch.no_grad():
        for d in domains:
            for chunk in corpus(d, 96).split(8):
                out = model(chunk[:, :-1])
                logits.setdefault(d, []).append(np.array(out.cpu()))
                labels.setdefault(d, []).append(chunk[:, 1:].numpy())
    report = {}
    for d in domains:
        x, y = np.concatenate(logits[d]), np.concatenate(labels[d])
        x = x - x.max(-1, keepdims=True)
        logp = x - np.log(np.exp(x).sum(-1, keepdims=True))
        report[d] = float(np.exp(-np.take_along_axis(logp, y[..., None], -1).mean()))
    model.train()
    return report


model = TinyLM()
opt = torch.optim.AdamW(model.parameters(), 2e-3)
print(evaluate(model, [0, 1, 2]))
for step in range(40):
    batch = corpus(step % 3, 16)
    loss = nn.functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
    opt.zero_grad()
    loss.backward()
    opt.step()
print(evaluate(model, [0, 1, 2]))
