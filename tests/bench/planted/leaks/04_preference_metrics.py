import collections
import torch
import torch.nn.functional as F
from torch import nn


class TinyPolicy(nn.Module):
    def __init__(self, vocab=300, dim=48):
        super().__init__()
        self.emb = nn.Embedding(vocab, dim)
        self.gru = nn.GRU(dim, dim, batch_first=True)
        self.head = nn.Linear(dim, vocab)

    def forward(self, ids):
        return self.head(self.gru(self.emb(ids))[0])


def seq_logp(logits, ids):
    lp = F.log_softmax(logits[:, :-1], -1)
    return lp.gather(-1, ids[:, 1:, None]).squeeze(-1).sum(-1)


class PreferenceTrainer:
    def __init__(self, model, beta=0.1):
        self.model = model
        self.beta = beta
        self.opt = torch.optim.AdamW(model.parameters(), lr=3e-4)
        self.stored = collections.defaultdict(list)

    def batch_loss(self, chosen, rejected):
        lc, lr_ = self.model(chosen), self.model(rejected)
        margin = seq_logp(lc, chosen) - seq_logp(lr_, rejected)
        metrics = {
            "margin": margin.mean().item(),
            "acc": (margin > 0).float().mean().item(),
            "nll": F.cross_entropy(lc[:, :-1].flatten(0, 1), chosen[:, 1:].flatten()),
        }
        return -F.logsigmoid(self.beta * margin).mean(), metrics

    def store(self, metrics):
        for k, v in metrics.items():
            self.stored[k].append(v)  # LEAK

    def fit(self, steps):
        for s in range(steps):
            c = torch.randint(0, 300, (4, 20))
            r = torch.randint(0, 300, (4, 20))
            loss, m = self.batch_loss(c, r)
            self.opt.zero_grad()
            loss.backward()
            self.opt.step()
            self.store(m)
            if s % 25 == 0:
                print(s, {k: round(float(sum(v) / len(v)), 3) for k, v in self.stored.items()})


torch.set_num_threads(1)
torch.manual_seed(11)
PreferenceTrainer(TinyPolicy()).fit(80)
