import torch
from torch import nn


def repackage(h):
    if isinstance(h, torch.Tensor):
        return h.detach()
    return tuple(repackage(v) for v in h)


class RNNModel(nn.Module):
    def __init__(self, v=60, h=96):
        super().__init__()
        self.enc = nn.Embedding(v, h)
        self.lstm = nn.LSTM(h, h, 2)
        self.dec = nn.Linear(h, v)

    def forward(self, x, hid):
        y, hid = self.lstm(self.enc(x), hid)
        return self.dec(y), hid


torch.set_num_threads(1)
torch.manual_seed(23)
data = torch.randint(0, 60, (12 * 80 + 1, 6))
model = RNNModel()
hidden = (torch.zeros(2, 6, 96), torch.zeros(2, 6, 96))
opt = torch.optim.SGD(model.parameters(), lr=1.0)
for n, i in enumerate(range(0, len(data) - 1, 12)):
    hidden = repackage(hidden)
    out, hidden = model(data[i:i + 12], hidden)
    loss = nn.functional.cross_entropy(out.flatten(0, 1), data[i + 1:i + 13].flatten())
    opt.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 0.25)
    opt.step()
    if n % 20 == 0:
        print(n, loss.item())
