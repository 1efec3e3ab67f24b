import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.set_num_threads(1)
torch.manual_seed(0)


class Tagger(nn.Module):
    def __init__(self, vocab=400, tags=30, dim=64):
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)
        self.lstm = nn.LSTM(dim, dim, batch_first=True)
        self.head = nn.Linear(dim, tags)

    def forward(self, ids):
        return self.head(self.lstm(self.embed(ids))[0])


def training_step(model, optimizer, ids, tags):
    logits = model(ids)
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), tags.flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    correct = (logits.argmax(-1) == tags).sum()
    return {"loss": loss.detach(), "correct": correct, "count": tags.numel()}


words = torch.randint(400, (480, 24))
loader = DataLoader(TensorDataset(words, words % 30), batch_size=16, shuffle=True)
model = Tagger()
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
all_epochs = []
for epoch in range(3):
    outputs = [training_step(model, optimizer, ids, tags) for ids, tags in loader]
    loss = torch.stack([o["loss"] for o in outputs]).mean().item()
    accuracy = sum(o["correct"].item() for o in outputs) / sum(o["count"] for o in outputs)
    all_epochs.append((loss, accuracy))
print(all_epochs)
