import random

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

random.seed(0)
torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class CharTokenizer:
    def __init__(self, max_length=64):
        self.model_max_length = max_length

    def __call__(self, text, truncation=False):
        ids = [min(ord(c), 255) for c in text]
        return ids[: self.model_max_length] if truncation else ids


class Mails(Dataset):
    def __init__(self, tokenizer, n=200):
        self.tok = tokenizer
        self.texts = ["".join(random.choices("abcdefgh ", k=random.randint(20, 60))) for _ in range(n)]
        self.texts[117] = "".join(random.choices("abcdefgh ", k=1500))  # somebody pasted a log file

    def __len__(self):
        return len(self.texts)

    def __getitem__(self, i):
        return torch.tensor(self.tok(self.texts[i]))  # LEAK


def collate(rows):
    return pad_sequence(rows, batch_first=True)


class CharLM(nn.Module):
    def __init__(self, d=64):
        super().__init__()
        self.emb = nn.Embedding(256, d)
        self.conv = nn.ModuleList(nn.Conv1d(d, d, 3) for _ in range(3))
        self.head = nn.Linear(d, 256)

    def forward(self, ids):
        h = self.emb(ids).transpose(1, 2)
        for c in self.conv:
            h = h + c(nn.functional.pad(h, (2, 0))).relu()
        return self.head(h.transpose(1, 2))


model = CharLM().to(device)
opt = torch.optim.Adam(model.parameters(), 2e-3)
for step, ids in enumerate(DataLoader(Mails(CharTokenizer()), batch_size=4, collate_fn=collate)):
    ids = ids.to(device)
    logits = model(ids[:, :-1])
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=0)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 10 == 0:
        print(step, tuple(ids.shape), loss.item())
