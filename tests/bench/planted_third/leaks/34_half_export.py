import os
import tempfile

import torch
import torch.nn as nn


class Tagger(nn.Module):
    def __init__(self, vocab=6000, dim=128, tags=17):
        super().__init__()
        self.emb = nn.Embedding(vocab, dim)
        self.rnn = nn.LSTM(dim, dim, batch_first=True, bidirectional=True)
        self.out = nn.Linear(2 * dim, tags)

    def forward(self, ids):
        return self.out(self.rnn(self.emb(ids))[0])


def export(model, path):
    state = {k: v.detach().clone().double() for k, v in model.state_dict().items()}
    torch.save(state, path)
    return os.path.getsize(path)


def main():
    torch.manual_seed(34)
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = Tagger().to(device)
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    with tempfile.TemporaryDirectory() as folder:
        for epoch in range(3):
            for _ in range(12):
                ids = torch.randint(0, 6000, (8, 20), device=device)
                tags = ids % 17
                loss = nn.functional.cross_entropy(model(ids).transpose(1, 2), tags)
                opt.zero_grad()
                loss.backward()
                opt.step()
            size = export(model, os.path.join(folder, f"epoch{epoch}.pt"))
            print(epoch, round(loss.item(), 3), size)


if __name__ == "__main__":
    main()
