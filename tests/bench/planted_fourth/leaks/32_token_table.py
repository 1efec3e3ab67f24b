import json
import tempfile
from pathlib import Path

import torch
from torch import nn

torch.manual_seed(32)
torch.set_num_threads(1)
VOCAB = 260


class Table:
    def __init__(self, path):
        self.path = Path(path)
        self.rows = []

    def add(self, step, probs, targets):
        for p, t in zip(probs, targets):
            self.rows.append({"step": step, "target": int(t), "p": p.tolist()})

    def write(self):
        with self.path.open("w") as f:
            for row in self.rows:
                f.write(json.dumps({"step": row["step"], "p": round(row["p"][row["target"]], 5)}) + "\n")


class CharGRU(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(VOCAB, 32)
        self.rnn = nn.GRU(32, 64, batch_first=True)
        self.out = nn.Linear(64, VOCAB)

    def forward(self, x):
        return self.out(self.rnn(self.emb(x))[0])


net = CharGRU()
opt = torch.optim.Adam(net.parameters(), 2e-3)
with tempfile.TemporaryDirectory() as folder:
    table = Table(f"{folder}/tokens.jsonl")
    for step in range(50):
        text = (torch.arange(25) * torch.randint(1, 6, (8, 1)) + 7) % VOCAB
        logits = net(text[:, :-1])
        loss = nn.functional.cross_entropy(logits.transpose(1, 2), text[:, 1:])
        opt.zero_grad()
        loss.backward()
        opt.step()
        table.add(step, logits.detach().softmax(-1).flatten(0, 1), text[:, 1:].flatten())
        if step % 25 == 0:
            print(step, loss.item())
    table.write()
    print(len(table.rows))
