import random

import torch
from torch import nn

random.seed(0)
torch.manual_seed(0)
torch.set_num_threads(1)


class EncoderRNN(nn.Module):
    def __init__(self, v, h):
        super().__init__()
        self.emb, self.gru = nn.Embedding(v, h), nn.GRU(h, h, batch_first=True)

    def forward(self, x):
        return self.gru(self.emb(x))


class AttnDecoder(nn.Module):
    def __init__(self, v, h):
        super().__init__()
        self.emb, self.gru, self.out = nn.Embedding(v, h), nn.GRU(2 * h, h, batch_first=True), nn.Linear(h, v)

    def forward(self, tok, hidden, enc):
        w = (hidden[-1][:, None] @ enc.transpose(1, 2)).softmax(-1)
        o, hidden = self.gru(torch.cat([self.emb(tok), w @ enc], -1), hidden)
        return self.out(o), hidden, w


enc, dec = EncoderRNN(40, 64), AttnDecoder(40, 64)
opt = torch.optim.Adam([*enc.parameters(), *dec.parameters()], lr=2e-3)
plot_losses, print_total = [], 0.0
for it in range(1, 91):
    src = torch.randint(2, 40, (16, 10))
    tgt = src.flip(1)
    memory, hidden = enc(src)
    tok, loss = torch.zeros(16, 1, dtype=torch.long), 0
    forcing = random.random() < 0.5
    for t in range(tgt.shape[1]):
        logits, hidden, attn = dec(tok, hidden, memory)
        loss = loss + nn.functional.cross_entropy(logits[:, 0], tgt[:, t])
        tok = tgt[:, t : t + 1] if forcing else logits.argmax(-1).detach()
    opt.zero_grad()
    loss.backward()
    opt.step()
    print_total += loss.item() / 10
    if it % 30 == 0:
        plot_losses.append(print_total / 30)
        print(it, plot_losses[-1], attn.shape)
        print_total = 0.0
