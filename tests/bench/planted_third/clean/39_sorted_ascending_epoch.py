import random

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

random.seed(139)
torch.manual_seed(139)
torch.set_num_threads(1)


class Reader(nn.Module):
    def __init__(self, vocab=120, dim=48):
        super().__init__()
        self.emb = nn.Embedding(vocab, dim, padding_idx=0)
        self.rnn = nn.LSTM(dim, dim, batch_first=True)
        self.out = nn.Linear(dim, 3)

    def forward(self, ids, lengths):
        packed = pack_padded_sequence(self.emb(ids), lengths, batch_first=True, enforce_sorted=False)
        _, (h, _) = self.rnn(packed)
        return self.out(h[-1])


texts = [torch.randint(1, 120, (random.randint(10, 90),)) for _ in range(160)]
model = Reader()
opt = torch.optim.Adam(model.parameters(), 1e-3)
for epoch in range(2):
    order = list(range(len(texts)))
    if epoch == 0:
        order.sort(key=lambda i: len(texts[i]))  # SortaGrad: short texts first in epoch 0
    else:
        random.shuffle(order)
    for start in range(0, len(order), 8):
        part = [texts[i] for i in order[start : start + 8]]
        lengths = torch.tensor([len(t) for t in part])
        y = torch.stack([t[0] % 3 for t in part])
        loss = nn.functional.cross_entropy(model(pad_sequence(part, batch_first=True), lengths), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
    print(epoch, round(loss.item(), 3), int(lengths.max()))
