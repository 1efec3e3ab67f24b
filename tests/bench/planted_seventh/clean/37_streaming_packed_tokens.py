import random

import torch
from torch.utils.data import DataLoader, IterableDataset
from transformers import GPT2Config, GPT2LMHeadModel

torch.set_num_threads(1)
torch.manual_seed(45)
device = "cuda" if torch.cuda.is_available() else "cpu"


class PackedStream(IterableDataset):
    """Packs an endless stream of documents into blocks; shuffles through a small window."""

    def __init__(self, block=32, window=8, vocab=300):
        self.block = block
        self.window = window
        self.vocab = vocab

    def documents(self, rng):
        while True:
            yield [rng.randrange(1, self.vocab) for _ in range(rng.randint(10, 60))] + [0]

    def blocks(self, rng):
        pending = []
        for document in self.documents(rng):
            pending.extend(document)
            while len(pending) >= self.block:
                yield torch.tensor(pending[: self.block])
                del pending[: self.block]

    def __iter__(self):
        rng = random.Random(0)
        window = []
        for block in self.blocks(rng):
            if len(window) < self.window:
                window.append(block)
                continue
            slot = rng.randrange(self.window)
            yield window[slot]
            window[slot] = block


config = GPT2Config(vocab_size=300, n_positions=32, n_embd=64, n_layer=2, n_head=4, use_cache=False)
model = GPT2LMHeadModel(config).to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
loader = DataLoader(PackedStream(), batch_size=4)
tokens = 0
for step, ids in zip(range(50), loader):
    ids = ids.to(device)
    loss = model(ids, labels=ids).loss
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    tokens += ids.numel()
    if step % 10 == 9:
        print(step, tokens, round(loss.item(), 4))
