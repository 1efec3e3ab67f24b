import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(0)
torch.set_num_threads(1)
VOCAB = 4000


class LM(nn.Module):
    def __init__(self, d=32):
        super().__init__()
        self.emb = nn.Embedding(VOCAB, d)
        self.gru = nn.GRU(d, d, batch_first=True)
        self.head = nn.Linear(d, VOCAB)

    def forward(self, ids):
        return self.head(self.gru(self.emb(ids))[0])


def batches(n, seed):
    g = torch.Generator().manual_seed(seed)
    for _ in range(n):
        yield torch.randint(0, VOCAB, (4, 33), generator=g)


def evaluate(model):
    model.eval()
    all_logits, all_targets = [], []
    with torch.no_grad():
        for ids in batches(40, 1):
            logits = model(ids[:, :-1])
            all_logits.append(logits)  # LEAK
            all_targets.append(ids[:, 1:])
    logits = torch.cat(all_logits).flatten(0, 1)
    targets = torch.cat(all_targets).flatten()
    acc = (logits.argmax(-1) == targets).float().mean().item()
    model.train()
    return acc


model = LM()
opt = torch.optim.SGD(model.parameters(), lr=0.5)
for epoch in range(2):
    for ids in batches(20, 0):
        loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        opt.zero_grad()
        loss.backward()
        opt.step()
    print("epoch", epoch, "loss", loss.item(), "acc", evaluate(model))
