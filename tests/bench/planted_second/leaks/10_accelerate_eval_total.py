import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
torch.set_num_threads(1)


class TextCNN(nn.Module):
    def __init__(self, vocab=500, dim=48):
        super().__init__()
        self.emb = nn.Embedding(vocab, dim)
        self.convs = nn.ModuleList(nn.Conv1d(dim, 48, k, padding="same") for k in (3, 5))
        self.fc = nn.Linear(96, 2)

    def forward(self, ids):
        h = self.emb(ids).transpose(1, 2)
        return self.fc(torch.cat([c(h).relu().amax(2) for c in self.convs], 1))


def loader(n, shuffle):
    ids = torch.randint(0, 500, (n, 32))
    return DataLoader(TensorDataset(ids, (ids[:, 0] > 250).long()), batch_size=16, shuffle=shuffle)


accelerator = Accelerator()
model = TextCNN()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
model, optimizer, train_dl, eval_dl = accelerator.prepare(model, optimizer, loader(160, True), loader(960, False))
criterion = nn.CrossEntropyLoss()

for epoch in range(2):
    model.train()
    for ids, y in train_dl:
        loss = criterion(model(ids), y)
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()

    model.eval()
    total_loss = 0
    correct = 0
    for ids, y in eval_dl:
        out = model(ids)
        total_loss += criterion(out, y)  # LEAK
        correct += (out.argmax(1) == y).sum().item()
    accelerator.print(f"epoch {epoch}: eval loss {total_loss.item() / len(eval_dl):.4f} acc {correct / 960:.3f}")
