"""CTC speech recognition on utterances of very different duration."""

import random

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"
VOCAB = 30


class Utterances(Dataset):
    def __init__(self, n=160, seed=0):
        rng = random.Random(seed)
        self.frames = [rng.randint(60, 120) for _ in range(n)]
        self.frames[137] = 1100

    def __len__(self):
        return len(self.frames)

    def __getitem__(self, i):
        gen = torch.Generator().manual_seed(i)
        mel = torch.randn(self.frames[i], 40, generator=gen)
        text = torch.randint(1, VOCAB, (self.frames[i] // 12,), generator=gen)
        return mel, text


def collate(items):
    mels, texts = zip(*items, strict=True)
    frames = torch.tensor([len(m) for m in mels])
    lengths = torch.tensor([len(t) for t in texts])
    return pad_sequence(mels, batch_first=True), torch.cat(texts), frames, lengths


class Acoustic(nn.Module):
    def __init__(self, ch=64):
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv1d(40, ch, 5, padding=2), nn.Conv1d(ch, ch, 5, padding=2)])
        self.head = nn.Linear(ch, VOCAB)

    def forward(self, mel):
        h = mel.transpose(1, 2)
        for conv in self.convs:
            h = F.gelu(conv(h))
        return self.head(h.transpose(1, 2)).log_softmax(-1)


torch.manual_seed(0)
loader = DataLoader(Utterances(), batch_size=4, collate_fn=collate)
model = Acoustic().to(device)
opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
ctc = nn.CTCLoss(zero_infinity=True)
for step, (mel, text, frames, lengths) in enumerate(loader):
    logp = model(mel.to(device))
    loss = ctc(logp.transpose(0, 1), text.to(device), frames, lengths)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 10 == 0:
        print(f"step {step} frames {mel.shape[1]} loss {loss.item():.3f}")
