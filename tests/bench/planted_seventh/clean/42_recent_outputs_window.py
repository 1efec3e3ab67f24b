from collections import deque

import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(50)
device = "cuda" if torch.cuda.is_available() else "cpu"


class IntentModel(nn.Module):
    def __init__(self, vocab=800, dim=96, intents=64):
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)
        self.rnn = nn.GRU(dim, dim, batch_first=True)
        self.head = nn.Linear(dim, intents)

    def forward(self, ids):
        return self.head(self.rnn(self.embed(ids))[1][-1])


class CalibrationMonitor:
    """Expected calibration error over the last few batches."""

    def __init__(self, window):
        self.outputs = deque(maxlen=window)

    def update(self, logits, labels):
        self.outputs.append((logits.detach(), labels))

    def error(self, bins=10):
        logits = torch.cat([o for o, _ in self.outputs])
        labels = torch.cat([t for _, t in self.outputs])
        confidence, predictions = logits.softmax(-1).max(-1)
        correct = predictions.eq(labels).float()
        index = (confidence * bins).long().clamp(max=bins - 1)
        gaps = [
            (correct[index == b].mean() - confidence[index == b].mean()).abs() * (index == b).float().mean()
            for b in range(bins)
            if (index == b).any()
        ]
        return torch.stack(gaps).sum().item()


model = IntentModel().to(device)
monitor = CalibrationMonitor(window=6)
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
for step in range(60):
    ids = torch.randint(0, 800, (16, 20), device=device)
    labels = ids[:, 0] % 64
    logits = model(ids)
    loss = F.cross_entropy(logits, labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    monitor.update(logits, labels)
    if step % 10 == 9:
        print(step, round(loss.item(), 4), "ece", round(monitor.error(), 4))
