import torch
from torch import nn


class CharRNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb, self.rnn, self.out = nn.Embedding(64, 64), nn.LSTM(64, 128, 2), nn.Linear(128, 64)
        self.state = None

    def forward(self, x):
        if self.state is not None:
            self.state = tuple(s.detach() for s in self.state)
        y, self.state = self.rnn(self.emb(x), self.state)
        return self.out(y)


torch.manual_seed(2)
net = CharRNN()
opt = torch.optim.Adam(net.parameters(), 2e-3)
text = torch.arange(40 * 60 + 1).mul(7).remainder(64)[:, None].repeat(1, 8)
losses = []
for w in range(60):
    a = text[w * 40:(w + 1) * 40]
    b = text[w * 40 + 1:(w + 1) * 40 + 1]
    loss = nn.functional.cross_entropy(net(a).flatten(0, 1), b.flatten())
    opt.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    opt.step()
    losses.append(loss)
    if w % 15 == 14:
        print(w + 1, f"{sum(l.item() for l in losses[-15:]) / 15:.4f}")
