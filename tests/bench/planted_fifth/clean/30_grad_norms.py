import torch
from torch import nn

torch.manual_seed(130)
torch.set_num_threads(1)


class Reader(nn.Module):
    def __init__(self, vocab=200):
        super().__init__()
        self.emb = nn.Embedding(vocab, 24)
        self.rnn = nn.LSTM(24, 48, batch_first=True)
        self.out = nn.Linear(48, vocab)

    def forward(self, ids):
        return self.out(self.rnn(self.emb(ids))[0])


norms = {}


def keep(name):
    def hook(module, grad_input, grad_output):
        norms.setdefault(name, []).append(grad_output[0].norm().item())

    return hook


reader = Reader()
for name, module in reader.named_children():
    module.register_full_backward_hook(keep(name))
opt = torch.optim.Adam(reader.parameters(), 3e-3)
for step in range(60):
    ids = torch.randint(200, (6, 25))
    loss = nn.functional.cross_entropy(reader(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 20 == 0:
        print(step, loss.item(), {name: values[-1] for name, values in norms.items()})
