import gc

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"


class GarbageCollection:
    def __init__(self, gc_freq):
        self.gc_freq = gc_freq
        gc.disable()
        gc.collect()

    def run(self, step):
        if step and step % self.gc_freq == 0:
            gc.collect()


class PendingLoss:
    def __init__(self, logits, targets):
        self.logits = logits
        self.targets = targets
        self.callbacks = [self.to_perplexity]
        self.value = None

    def wait(self):
        loss = nn.functional.cross_entropy(self.logits.flatten(0, 1), self.targets.flatten())
        self.value = loss.detach()
        for callback in self.callbacks:
            callback()
        return loss

    def to_perplexity(self):
        self.perplexity = self.value.exp().item()


class CharModel(nn.Module):
    def __init__(self, vocab=300, dim=64):
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)
        self.gru = nn.GRU(dim, dim, batch_first=True)
        self.head = nn.Linear(dim, vocab)

    def forward(self, ids):
        return self.head(self.gru(self.embed(ids))[0])


class Recipe:
    def __init__(self, gc_freq=1000):
        self.model = CharModel().to(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.collector = GarbageCollection(gc_freq)

    def train(self, steps):
        for step in range(steps):
            ids = torch.randint(300, (8, 33), device=device)
            pending = PendingLoss(self.model(ids[:, :-1]), ids[:, 1:])
            pending.wait().backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.collector.run(step)
            if step % 20 == 0:
                print(step, f"ppl {pending.perplexity:.1f}")


Recipe().train(80)
