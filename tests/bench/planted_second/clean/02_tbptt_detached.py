import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)


def repackage_hidden(h):
    """Wraps hidden states in new tensors, to detach them from their history."""
    if isinstance(h, torch.Tensor):
        return h.detach()
    return tuple(repackage_hidden(v) for v in h)


class RNNModel(nn.Module):
    def __init__(self, ntoken=60, ninp=32, nhid=64, nlayers=2):
        super().__init__()
        self.nhid, self.nlayers = nhid, nlayers
        self.encoder = nn.Embedding(ntoken, ninp)
        self.rnn = nn.LSTM(ninp, nhid, nlayers)
        self.decoder = nn.Linear(nhid, ntoken)

    def forward(self, x, hidden):
        out, hidden = self.rnn(self.encoder(x), hidden)
        return self.decoder(out).flatten(0, 1), hidden

    def init_hidden(self, bsz):
        w = next(self.parameters())
        return (w.new_zeros(self.nlayers, bsz, self.nhid), w.new_zeros(self.nlayers, bsz, self.nhid))


data = torch.randint(0, 60, (100 * 20 + 1, 8))
model = RNNModel()
hidden = model.init_hidden(8)
total_loss = 0.0
lr = 2.0
for batch, i in enumerate(range(0, len(data) - 1, 20)):
    x, y = data[i : i + 20], data[i + 1 : i + 21].reshape(-1)
    hidden = repackage_hidden(hidden)
    model.zero_grad()
    out, hidden = model(x, hidden)
    loss = nn.functional.cross_entropy(out, y)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 0.25)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(p.grad, alpha=-lr)
    total_loss += loss.item()
    if batch % 25 == 24:
        print(batch, total_loss / 25)
        total_loss = 0.0
