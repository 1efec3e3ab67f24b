import math
import torch
from torch import nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(1)
V, T = 2000, 24


class LM(nn.Module):
    def __init__(self):
        super().__init__()
        self.tok = nn.Embedding(V, 32)
        self.pos = nn.Parameter(torch.zeros(T, 32))
        layer = nn.TransformerEncoderLayer(32, 2, 64, dropout=0.0, batch_first=True)
        self.tr = nn.TransformerEncoder(layer, 1)
        self.head = nn.Linear(32, V)

    def forward(self, x):
        m = nn.Transformer.generate_square_subsequent_mask(x.size(1))
        return self.head(self.tr(self.tok(x) + self.pos, mask=m))


val = [torch.randint(0, V, (2, T)) for _ in range(4)]
all_logits, all_labels = [], []


@torch.no_grad()
def evaluate(model):
    model.eval()
    start = len(all_logits)
    for ids in val:
        all_logits.append(model(ids))  # LEAK
        all_labels.append(ids)
    lg = torch.cat(all_logits[start:])[:, :-1]
    lb = torch.cat(all_labels[start:])[:, 1:]
    model.train()
    return math.exp(F.cross_entropy(lg.flatten(0, 1), lb.flatten()).item())


model = LM()
opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
for step in range(1, 61):
    ids = torch.randint(0, V, (4, T))
    loss = F.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 6 == 0:
        print(f"step {step} train {loss.item():.3f} ppl {evaluate(model):.1f}")
