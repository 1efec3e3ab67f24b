import numpy as np
import torch
from torch import nn


class Tagger(nn.Module):
    def __init__(self, vocab=400, tags=600):
        super().__init__()
        self.emb = nn.Embedding(vocab, 40)
        self.lstm = nn.LSTM(40, 40, bidirectional=True, batch_first=True)
        self.cls = nn.Linear(80, tags)

    def forward(self, x):
        return self.cls(self.lstm(self.emb(x))[0])


class Evaluator:
    def __init__(self, batches):
        self.batches = batches
        self.preds = []
        self.labels = []

    def run(self, model):
        model.eval()
        hits = total = 0
        with torch.inference_mode():
            for x, y in self.batches:
                logits = model(x).numpy()
                self.preds.append(logits)  # LEAK
                self.labels.append(y.numpy())
                hits += int((logits.argmax(-1) == y.numpy()).sum())
                total += y.numel()
        model.train()
        return hits / total


def make(n, bs=4, length=20):
    rng = np.random.default_rng(3)
    out = []
    for _ in range(n):
        x = torch.from_numpy(rng.integers(0, 400, (bs, length)))
        out.append((x, (x * 7) % 600))
    return out


torch.set_num_threads(1)
torch.manual_seed(3)
train, ev = make(70), Evaluator(make(5))
model = Tagger()
opt = torch.optim.Adam(model.parameters(), lr=2e-3)
for i, (x, y) in enumerate(train):
    loss = nn.functional.cross_entropy(model(x).transpose(1, 2), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if i % 5 == 4:
        print(i, loss.item(), ev.run(model))
