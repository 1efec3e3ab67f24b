import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

torch.set_num_threads(1)
torch.manual_seed(23)
VOCAB = 120


class Classifier(nn.Module):
    def __init__(self, d=48):
        super().__init__()
        self.emb = nn.Embedding(VOCAB, d, padding_idx=0)
        layer = nn.TransformerEncoderLayer(d, 4, 96, dropout=0.0, batch_first=True)
        self.enc = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Linear(d, 2)

    def forward(self, ids):
        mask = ids.eq(0)
        h = self.enc(self.emb(ids), src_key_padding_mask=mask)
        return self.out(h.masked_fill(mask[..., None], 0).sum(1) / (~mask).sum(1, keepdim=True))


def collate(docs):
    return pad_sequence(docs, batch_first=True)  # LEAK


def corpus():
    g = torch.Generator().manual_seed(2)
    for i in range(200):
        n = int(torch.randint(12, 48, (1,), generator=g))
        if i == 166:
            n = 700
        yield torch.randint(1, VOCAB, (n,), generator=g)


docs = list(corpus())
net = Classifier()
opt = torch.optim.AdamW(net.parameters(), lr=1e-3)
for step, i in enumerate(range(0, 200, 4)):
    ids = collate(docs[i:i + 4])
    y = torch.tensor([int(d.float().mean() > VOCAB / 2) for d in docs[i:i + 4]])
    loss = F.cross_entropy(net(ids), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 10 == 0:
        print(step, tuple(ids.shape), loss.item())
