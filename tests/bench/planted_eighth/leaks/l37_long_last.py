"""Documents sorted by length ('curriculum'), with no limit on tokens per batch."""
import torch
from torch import nn
import torch.nn.functional as F

torch.manual_seed(37)


class Reader(nn.Module):
    def __init__(self, d=48):
        super().__init__()
        self.emb = nn.Embedding(200, d)
        self.att = nn.TransformerEncoderLayer(d, 4, 96, batch_first=True, dropout=0.0)
        self.cls = nn.Linear(d, 2)

    def forward(self, ids):
        return self.cls(self.att(self.emb(ids)).mean(1))


lengths = sorted([int(l) for l in torch.randint(20, 120, (236,))] + [700, 720, 760, 800])
docs = [torch.randint(0, 200, (l,)) for l in lengths]
net = Reader()
opt = torch.optim.AdamW(net.parameters(), 1e-3)
for k in range(0, len(docs), 4):
    ids = nn.utils.rnn.pad_sequence(docs[k:k + 4], batch_first=True)
    loss = F.cross_entropy(net(ids), ids[:, 0] % 2)  # LEAK
    opt.zero_grad()
    loss.backward()
    opt.step()
    if k % 40 == 36:
        print(k + 4, tuple(ids.shape), f"{loss.item():.4f}")
