import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

VOCAB, WIDTH, LENGTH = 3000, 32, 40


class WordModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(VOCAB, WIDTH)
        self.rnn = nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.head = nn.Linear(WIDTH, VOCAB)

    def forward(self, ids):
        return self.head(self.rnn(self.emb(ids))[0])


def text(rows):
    first = torch.randint(VOCAB, (rows, 1))
    return TensorDataset((first + 17 * torch.arange(LENGTH + 1)) % VOCAB)


def nll(model, ids):
    logits = model(ids[:, :-1])
    return nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


def main():
    torch.manual_seed(54)
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=4)
    model = WordModel()
    train, valid = DataLoader(text(24), batch_size=1), DataLoader(text(32), batch_size=16)
    model, opt, train, valid = accelerator.prepare(model, torch.optim.Adam(model.parameters(), 1e-3), train, valid)
    for epoch in range(2):
        for (ids,) in train:
            with accelerator.accumulate(model):
                loss = nll(model, ids)
                accelerator.backward(loss)
                opt.step()
                opt.zero_grad()
        model.eval()
        losses = []
        for (ids,) in valid:
            with torch.no_grad():
                losses.append(nll(model, ids).item())
        model.train()
        accelerator.print(epoch, loss.item(), sum(losses) / len(losses))


main()
