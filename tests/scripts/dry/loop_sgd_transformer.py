"""A torch.nn Transformer encoder of its own as a language model: SGD with momentum, gradient accumulation, float32."""

import argparse
import math

import torch
from torch import nn
from torch.nn import functional as F

parser = argparse.ArgumentParser()
parser.add_argument("--size", choices=["tiny", "full"], default="tiny")
args = parser.parse_args()
vocab, width, depth, length = (300, 64, 2, 48) if args.size == "tiny" else (32000, 1024, 12, 512)

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"


class Positions(nn.Module):
    def __init__(self, width, length):
        super().__init__()
        position = torch.arange(length).unsqueeze(1)
        frequency = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
        table = torch.zeros(length, width)
        table[:, 0::2] = torch.sin(position * frequency)
        table[:, 1::2] = torch.cos(position * frequency)
        self.register_buffer("table", table)

    def forward(self, x):
        return x + self.table[: x.size(1)]


class LanguageModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        self.positions = Positions(width, length)
        layer = nn.TransformerEncoderLayer(width, 8, 4 * width, dropout=0.1, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.head = nn.Linear(width, vocab)

    def forward(self, ids):
        mask = nn.Transformer.generate_square_subsequent_mask(ids.size(1), device=ids.device)
        return self.head(self.encoder(self.positions(self.embed(ids)), mask=mask, is_causal=True))


model = LanguageModel().to(device)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
for step in range(6):
    optimizer.zero_grad()
    total = 0.0
    for _ in range(2):
        tokens = torch.randint(vocab, (4, length + 1))
        inputs, targets = tokens[:, :-1].to(device), tokens[:, 1:].to(device)
        loss = F.cross_entropy(model(inputs).view(-1, vocab), targets.reshape(-1)) / 2
        loss.backward()
        total += loss.item()
    optimizer.step()
    print(step, round(total, 3))
