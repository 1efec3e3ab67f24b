import torch
from torch import nn

torch.manual_seed(138)
torch.set_num_threads(1)


class CTCModel(nn.Module):
    def __init__(self, mel=40, hid=64, chars=29):
        super().__init__()
        self.conv = nn.Conv1d(mel, hid, 5, stride=2, padding=2)
        self.rnn = nn.GRU(hid, hid, batch_first=True)
        self.out = nn.Linear(hid, chars)

    def forward(self, x):
        h = torch.relu(self.conv(x.transpose(1, 2))).transpose(1, 2)
        return self.out(self.rnn(h)[0]).log_softmax(-1)


def collate(lengths):
    x = torch.zeros(len(lengths), max(lengths), 40)
    for i, n in enumerate(lengths):
        x[i, :n] = torch.randn(n, 40)
    return x, torch.randint(1, 29, (len(lengths), 12)), torch.tensor([(n + 1) // 2 for n in lengths])


model = CTCModel()
opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
ctc = nn.CTCLoss(zero_infinity=True)
rows = sorted((60 + (i * 37) % 180 for i in range(96)), reverse=True)
for i in range(0, len(rows), 4):
    x, y, n = collate(rows[i : i + 4])
    loss = ctc(model(x).transpose(0, 1), y, n, torch.full((len(n),), 12))
    opt.zero_grad()
    loss.backward()
    opt.step()
    if i % 32 == 0:
        print(i, tuple(x.shape), round(loss.item(), 3))
