import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(0)
torch.set_num_threads(1)
VOCAB = 2000


class LM(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb, self.gru, self.head = nn.Embedding(VOCAB, 32), nn.GRU(32, 32, batch_first=True), nn.Linear(32, VOCAB)

    def forward(self, ids):
        return self.head(self.gru(self.emb(ids))[0])


@torch.no_grad()
def evaluate(model, batches):
    model.eval()
    preds, golds, nll = [], [], 0.0
    for ids in batches:
        logits = model(ids[:, :-1])
        nll += F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).item()
        preds.append(logits.argmax(-1))
        golds.append(ids[:, 1:])
    model.train()
    acc = (torch.cat(preds) == torch.cat(golds)).float().mean().item()
    return nll / len(batches), acc


model = LM()
opt = torch.optim.SGD(model.parameters(), lr=0.5)
val = [torch.randint(0, VOCAB, (4, 25)) for _ in range(30)]
for epoch in range(3):
    for _ in range(20):
        ids = torch.randint(0, VOCAB, (4, 25))
        loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        opt.zero_grad()
        loss.backward()
        opt.step()
    print(epoch, loss.item(), *evaluate(model, val))
