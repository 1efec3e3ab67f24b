"""Train batch 2, evaluation at the library's default of 16; dies under a budget in the first evaluation."""
import torch
from torch import nn
import torch.nn.functional as F

torch.manual_seed(35)
V, T = 4000, 64


class LM(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(V, 32)
        self.rnn = nn.GRU(32, 32, batch_first=True)
        self.lm_head = nn.Linear(32, V)

    def forward(self, ids):
        return self.lm_head(self.rnn(self.emb(ids))[0])


def nll(lm, ids):
    logits = lm(ids[:, :-1])
    return F.cross_entropy(logits.reshape(-1, V).float(), ids[:, 1:].reshape(-1))


lm = LM()
opt = torch.optim.AdamW(lm.parameters(), 1e-3)
for epoch in range(2):
    lm.train()
    for _ in range(15):
        loss = nll(lm, torch.randint(0, V, (2, T + 1)))
        loss.backward()
        opt.step()
        opt.zero_grad(set_to_none=True)
    lm.eval()
    with torch.no_grad():
        held_out = torch.stack([nll(lm, torch.randint(0, V, (16, T + 1))) for _ in range(4)])  # LEAK
    print(epoch, f"{loss.item():.3f} {held_out.mean().item():.3f}")
