import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(29)
torch.set_num_threads(1)
VOCAB = 4000


class Word(nn.Module):
    def __init__(self):
        super().__init__()
        self.e = nn.Embedding(VOCAB, 48)
        self.r = nn.LSTM(48, 64, batch_first=True)
        self.o = nn.Linear(64, VOCAB)

    def forward(self, x, y):
        logits = self.o(self.r(self.e(x))[0])
        return nn.functional.cross_entropy(logits.reshape(-1, VOCAB), y.reshape(-1))


def text(rows, seed):
    return TensorDataset(torch.randint(0, VOCAB, (rows, 33), generator=torch.Generator().manual_seed(seed)))


train_loader = DataLoader(text(64, 1), batch_size=4, shuffle=True)
valid_loader = DataLoader(text(128, 2), batch_size=64)
model = Word()
opt = torch.optim.SGD(model.parameters(), lr=0.5)
for epoch in range(2):
    model.train()
    for (row,) in train_loader:
        loss = model(row[:, :-1], row[:, 1:])
        opt.zero_grad()
        loss.backward()
        opt.step()
    model.eval()
    with torch.no_grad():
        val = [model(row[:, :-1], row[:, 1:]).item() for (row,) in valid_loader]
    print(epoch, round(loss.item(), 3), [round(v, 3) for v in val])
