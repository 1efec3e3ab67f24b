import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"


class SentenceEncoder(nn.Module):
    def __init__(self, vocab=2000, dim=96, classes=5):
        super().__init__()
        self.embed = nn.EmbeddingBag(vocab, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, classes))

    def forward(self, ids):
        return self.mlp(self.embed(ids))


class Trial:
    def __init__(self, lr, weight_decay):
        self.lr = lr
        self.weight_decay = weight_decay
        self.model = SentenceEncoder().to(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=lr, weight_decay=weight_decay)
        self.score = None

    def run(self, ids, labels, steps):
        for step in range(steps):
            pick = torch.randint(len(ids), (32,), device=device)
            loss = nn.functional.cross_entropy(self.model(ids[pick]), labels[pick])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        with torch.no_grad():
            self.score = (self.model(ids).argmax(-1) == labels).float().mean().item()
        return self.score


class Study:
    def __init__(self):
        self.trials = []

    def optimize(self, space, ids, labels):
        for lr, weight_decay in space:
            trial = Trial(lr, weight_decay)
            trial.run(ids, labels, steps=10)
            self.trials.append(trial)
            print(f"lr {lr:g} wd {weight_decay:g}: {trial.score:.3f}")

    @property
    def best_params(self):
        best = max(self.trials, key=lambda t: t.score)
        return {"lr": best.lr, "weight_decay": best.weight_decay}


ids = torch.randint(2000, (256, 16), device=device)
labels = ids[:, 0] % 5
study = Study()
study.optimize([(lr, wd) for lr in (1e-4, 3e-4, 1e-3, 3e-3, 1e-2) for wd in (0.0, 0.01)], ids, labels)
print("best", study.best_params)
