import random

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pad_sequence

random.seed(1)
torch.manual_seed(1)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"
MAX_FRAMES = 240

lengths = [random.randint(60, 160) for _ in range(200)]
lengths[150] = 230
lengths[171] = 700
lengths = [min(n, MAX_FRAMES) for n in lengths]


class Recognizer(nn.Module):
    def __init__(self, ch=64, vocab=29):
        super().__init__()
        self.conv = nn.Conv1d(40, ch, 5, padding=2)
        self.rnn = nn.GRU(ch, ch, batch_first=True)
        self.out = nn.Linear(ch, vocab)

    def forward(self, x):
        h = F.relu(self.conv(x.transpose(1, 2))).transpose(1, 2)
        return self.out(self.rnn(h)[0]).log_softmax(-1)


def batches(size=4):
    for i in range(0, len(lengths), size):
        feats = [torch.randn(n, 40) for n in lengths[i : i + size]]
        labels = [torch.randint(1, 29, (n // 15,)) for n in lengths[i : i + size]]
        yield (
            pad_sequence(feats, batch_first=True).to(device),
            torch.tensor([len(f) for f in feats]),
            torch.cat(labels).to(device),
            torch.tensor([len(t) for t in labels]),
        )


model = Recognizer().to(device)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for step, (x, x_len, y, y_len) in enumerate(batches()):
    loss = F.ctc_loss(model(x).transpose(0, 1), y, x_len, y_len, zero_infinity=True)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 10 == 0:
        print(step, tuple(x.shape), loss.item())
