import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

VOCAB = 1500


class NextWord(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(VOCAB, 32)
        self.rnn = nn.GRU(32, 48, batch_first=True)
        self.out = nn.Linear(48, VOCAB)

    def forward(self, ids):
        return self.out(self.rnn(self.emb(ids))[0])


def make(n, seed):
    g = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.randint(0, VOCAB, (n, 17), generator=g))


def perplexity(accelerator, model, loader):
    scores, refs = [], []
    model.eval()
    for (ids,) in loader:
        with torch.no_grad():
            out = model(ids[:, :-1])
        out, tgt = accelerator.gather_for_metrics((out, ids[:, 1:].contiguous()))
        scores.append(out)
        refs.append(tgt)
    model.train()
    nll = [nn.functional.cross_entropy(s.flatten(0, 1), r.flatten()).item() for s, r in zip(scores, refs)]
    return sum(nll) / len(nll)


def main():
    accelerator = Accelerator()
    torch.manual_seed(18)
    torch.set_num_threads(1)
    model = NextWord()
    opt = torch.optim.AdamW(model.parameters(), lr=2e-3)
    train, val = DataLoader(make(96, 0), batch_size=8), DataLoader(make(240, 1), batch_size=8)
    model, opt, train, val = accelerator.prepare(model, opt, train, val)
    for epoch in range(2):
        for (ids,) in train:
            logits = model(ids[:, :-1])
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
            accelerator.backward(loss)
            opt.step()
            opt.zero_grad()
        accelerator.print(epoch, loss.item(), perplexity(accelerator, model, val))


main()
