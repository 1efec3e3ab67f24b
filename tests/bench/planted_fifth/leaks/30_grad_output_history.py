import torch
from torch import nn

torch.manual_seed(30)
torch.set_num_threads(1)


class GradientLens:
    def __init__(self, model, kinds=(nn.LSTM, nn.Linear)):
        self.flow = {}
        for name, module in model.named_modules():
            if isinstance(module, kinds):
                self.flow[name] = []
                module.register_full_backward_hook(self.make(name))

    def make(self, name):
        def hook(module, grad_input, grad_output):
            self.flow[name].append(grad_output[0])

        return hook

    def norms(self):
        return {name: round(grads[-1].norm().item(), 4) for name, grads in self.flow.items()}


class Reader(nn.Module):
    def __init__(self, vocab=200):
        super().__init__()
        self.emb = nn.Embedding(vocab, 24)
        self.rnn = nn.LSTM(24, 48, batch_first=True)
        self.out = nn.Linear(48, vocab)

    def forward(self, ids):
        return self.out(self.rnn(self.emb(ids))[0])


reader = Reader()
lens = GradientLens(reader)
opt = torch.optim.Adam(reader.parameters(), 3e-3)
for step in range(60):
    ids = torch.randint(200, (6, 25))
    logits = reader(ids[:, :-1])
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 20 == 0:
        print(step, loss.item(), lens.norms())
