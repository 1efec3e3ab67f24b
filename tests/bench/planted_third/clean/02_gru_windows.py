import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(102)
torch.set_num_threads(1)
DEV = "cuda" if torch.cuda.is_available() else "cpu"
WINDOW, VOCAB, ROWS = 24, 60, 16


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(VOCAB, 32)
        self.rnn = nn.GRU(32, 64)
        self.out = nn.Linear(64, VOCAB)

    def forward(self, x, h):
        y, h = self.rnn(self.emb(x), h)
        return self.out(y), h


def repackage(h):
    return tuple(map(repackage, h)) if isinstance(h, tuple) else h.detach()


text = torch.randint(0, VOCAB, (WINDOW * 60 + 1, ROWS), device=DEV)
model = Model().to(DEV)
opt = torch.optim.SGD(model.parameters(), lr=0.5)
h = torch.zeros(1, ROWS, 64, device=DEV)
for w in range(60):
    x = text[w * WINDOW : (w + 1) * WINDOW]
    y = text[w * WINDOW + 1 : (w + 1) * WINDOW + 1]
    h = repackage(h)
    logits, h = model(x, h)
    loss = F.cross_entropy(logits.flatten(0, 1), y.flatten())
    opt.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    opt.step()
    if w % 20 == 0:
        print(w, round(loss.item(), 4))
