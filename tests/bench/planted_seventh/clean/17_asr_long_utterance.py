"""CTC speech recognition; one long utterance comes late but the card has room for it."""

import random

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"
VOCAB = 28


class Utterances(torch.utils.data.Dataset):
    def __init__(self, n=160):
        rng = random.Random(1)
        self.frames = [rng.randint(80, 140) for _ in range(n)]
        self.frames[141] = 260

    def __len__(self):
        return len(self.frames)

    def __getitem__(self, i):
        gen = torch.Generator().manual_seed(i)
        return torch.randn(self.frames[i], 40, generator=gen), torch.randint(1, VOCAB, (6,), generator=gen)


def collate(items):
    mels, texts = zip(*items, strict=True)
    return pad_sequence(mels, batch_first=True), torch.stack(texts), torch.tensor([len(m) for m in mels])


class Acoustic(nn.Module):
    def __init__(self, ch=48):
        super().__init__()
        self.conv = nn.Conv1d(40, ch, 5, padding=2)
        self.head = nn.Linear(ch, VOCAB)

    def forward(self, mel):
        return self.head(F.gelu(self.conv(mel.transpose(1, 2))).transpose(1, 2)).log_softmax(-1)


torch.manual_seed(0)
model = Acoustic().to(device)
opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
ctc = nn.CTCLoss(zero_infinity=True)
lengths = torch.full((4,), 6)
for step, (mel, text, frames) in enumerate(DataLoader(Utterances(), batch_size=4, collate_fn=collate)):
    loss = ctc(model(mel.to(device)).transpose(0, 1), text.to(device), frames, lengths)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 10 == 0:
        print(f"step {step} frames {mel.shape[1]} loss {loss.item():.3f}")
