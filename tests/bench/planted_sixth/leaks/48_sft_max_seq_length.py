import random
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Dataset
from transformers import GPT2Config, GPT2LMHeadModel

torch.set_num_threads(1)
torch.manual_seed(0)
random.seed(3)
device = "cuda" if torch.cuda.is_available() else "cpu"


@dataclass
class Arguments:
    max_seq_length: int = 64
    batch_size: int = 4
    epochs: int = 1
    lr: float = 3e-4


class WordTokenizer:
    pad_id = 0

    def __init__(self, vocab_size):
        self.vocab_size = vocab_size

    def __call__(self, text, max_length=None):
        ids = [1 + sum(map(ord, word)) % (self.vocab_size - 1) for word in text.split()]
        return ids[:max_length]


class SupervisedDataset(Dataset):
    def __init__(self, rows, tokenizer, args):
        self.args = args
        self.examples = [tokenizer(f"{prompt} answer: {answer}") for prompt, answer in rows]

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, i):
        return self.examples[i]


def collate(batch):
    width = max(map(len, batch))
    ids = torch.tensor([row + [WordTokenizer.pad_id] * (width - len(row)) for row in batch])
    return ids, ids.masked_fill(ids == WordTokenizer.pad_id, -100)


def make_rows(count):
    words = ["alpha", "river", "stone", "cloud", "seven", "north", "glass", "ember"]
    for i in range(count):
        answer = random.randint(8, 30) if i % 30 != 17 else 400
        yield " ".join(random.choices(words, k=12)), " ".join(random.choices(words, k=answer))


args = Arguments()
dataset = SupervisedDataset(list(make_rows(120)), WordTokenizer(300), args)
config = GPT2Config(vocab_size=300, n_positions=512, n_embd=64, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0)
model = GPT2LMHeadModel(config).to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)
for epoch in range(args.epochs):
    for ids, labels in DataLoader(dataset, batch_size=args.batch_size, collate_fn=collate):
        loss = model(ids.to(device), labels=labels.to(device), use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    print(f"epoch {epoch} loss {loss.item():.3f}")
