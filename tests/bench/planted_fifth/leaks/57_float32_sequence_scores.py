import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(57)
torch.set_num_threads(1)
VOCAB = 4096


class Policy(nn.Module):
    def __init__(self, dim=48):
        super().__init__()
        self.emb = nn.Embedding(VOCAB, dim, dtype=torch.bfloat16)
        self.mix = nn.Linear(dim, dim, dtype=torch.bfloat16)

    def forward(self, ids):
        h = self.emb(ids)
        h = h + torch.tanh(self.mix(h.cumsum(1) / 8))
        return h @ self.emb.weight.T


def sequence_logps(policy, ids):
    logits = policy(ids[:, :-1]).float()
    logps = F.log_softmax(logits, dim=-1)
    return logps.gather(-1, ids[:, 1:, None]).squeeze(-1).sum(1)


def simpo_loss(policy, chosen, rejected, beta=0.02, margin=0.3):
    good = sequence_logps(policy, chosen)
    bad = sequence_logps(policy, rejected)
    return -F.logsigmoid(beta * (good - bad) - margin).mean()


def pairs(n, length=32):
    chosen = (torch.randint(VOCAB, (n, 1)) + torch.arange(length)) % VOCAB
    return chosen, torch.randint(VOCAB, (n, length))


policy = Policy()
opt = torch.optim.SGD(policy.parameters(), lr=0.1)
for step in range(40):
    loss = simpo_loss(policy, *pairs(8))
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 10 == 0:
        print(step, loss.item())
