"""A character model hands its state from batch to batch, and with it the graph of all batches before."""

import torch
from torch import nn


class CharRNN(nn.Module):
    def __init__(self, vocab=60, hidden=64):
        super().__init__()
        self.embed = nn.Embedding(vocab, hidden)
        self.cell = nn.LSTM(hidden, hidden, batch_first=True)
        self.out = nn.Linear(hidden, vocab)

    def forward(self, x, state=None):
        h, state = self.cell(self.embed(x), state)
        return self.out(h), state


torch.manual_seed(0)
net = CharRNN()
optimizer = torch.optim.RMSprop(net.out.parameters(), lr=1e-3)
state = None
for _ in range(14):
    x = torch.randint(60, (8, 20))
    logits, state = net(x, state)  # the mistake
    loss = nn.functional.cross_entropy(logits.reshape(-1, 60), x.reshape(-1))
    optimizer.zero_grad()
    loss.backward(retain_graph=True)
    optimizer.step()
print(loss.item())
