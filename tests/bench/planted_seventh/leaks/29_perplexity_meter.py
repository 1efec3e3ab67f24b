import math

import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(7)
device = "cuda" if torch.cuda.is_available() else "cpu"

VOCAB = 300


class LSTMLanguageModel(nn.Module):
    def __init__(self, dim=96):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, dim)
        self.rnn = nn.LSTM(dim, dim, batch_first=True)
        self.out = nn.Linear(dim, VOCAB)

    def forward(self, ids):
        hidden, _ = self.rnn(self.embed(ids))
        return self.out(hidden)


class Perplexity(nn.Module):
    """Keeps the per-token likelihoods so that quantiles can be reported as well."""

    def __init__(self):
        super().__init__()
        self.reset()

    def reset(self):
        self.nll = []
        self.probs = []

    @torch.no_grad()
    def update(self, logits, target):
        logp = logits.log_softmax(-1)
        self.nll.append(-logp.gather(-1, target.unsqueeze(-1)).squeeze(-1).flatten())
        self.probs.append(logp.exp().topk(20, dim=-1).values.flatten(0, 1))

    def compute(self):
        nll = torch.cat(self.nll)
        top = torch.cat(self.probs)[:, 0].median()
        return math.exp(nll.mean().item()), top.item()


class Runner:
    def __init__(self):
        self.model = LSTMLanguageModel().to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=2e-3)
        self.val_ppl = Perplexity()

    def train_epoch(self, steps=5):
        self.model.train()
        for _ in range(steps):
            ids = torch.randint(0, VOCAB, (4, 33), device=device)
            loss = F.cross_entropy(self.model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()

    @torch.no_grad()
    def validate(self, batches=4):
        self.model.eval()
        for _ in range(batches):
            ids = torch.randint(0, VOCAB, (8, 33), device=device)
            self.val_ppl.update(self.model(ids[:, :-1]), ids[:, 1:])
        return self.val_ppl.compute()


runner = Runner()
for epoch in range(12):
    runner.train_epoch()
    ppl, top = runner.validate()
    print(f"epoch {epoch} ppl {ppl:.1f} median top-1 {top:.4f}")
