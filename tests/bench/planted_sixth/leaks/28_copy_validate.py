import math

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"

VOCAB, DIM, LENGTH = 400, 96, 48


class Translator(nn.Module):
    def __init__(self, layers=6):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, DIM)
        self.position = nn.Parameter(torch.zeros(LENGTH, DIM))
        self.blocks = nn.ModuleList(
            [nn.TransformerEncoderLayer(DIM, 4, 4 * DIM, batch_first=True) for _ in range(layers)]
        )
        self.norm = nn.LayerNorm(DIM)
        self.generator = nn.Linear(DIM, VOCAB)

    def forward(self, src):
        x = self.embed(src) + self.position
        for block in self.blocks:
            x = block(x)
        return self.generator(self.norm(x))


class Trainer:
    def __init__(self, model):
        self.model = model
        self.criterion = nn.CrossEntropyLoss()
        self.optim = torch.optim.Adam(model.parameters(), lr=5e-4)

    def train(self, batches, valid, valid_every):
        for step, (src, tgt) in enumerate(batches, 1):
            self.model.train()
            loss = self.criterion(self.model(src).flatten(0, 1), tgt.flatten())
            self.optim.zero_grad()
            loss.backward()
            self.optim.step()
            del loss
            if step % valid_every == 0:
                print(f"step {step} valid ppl {self.validate(valid):.1f}")

    def validate(self, batches):
        self.model.eval()
        total = 0.0
        for src, tgt in batches:
            scores = self.model(src)
            total += self.criterion(scores.flatten(0, 1), tgt.flatten()).item()
        self.model.train()
        return math.exp(total / len(batches))


def pairs(count, batch_size):
    for _ in range(count):
        src = torch.randint(VOCAB, (batch_size, LENGTH), device=device)
        yield src, src.roll(1, dims=1)


trainer = Trainer(Translator().to(device))
trainer.train(pairs(30, 4), list(pairs(3, 16)), valid_every=10)
