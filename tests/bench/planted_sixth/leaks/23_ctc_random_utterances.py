import random

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

random.seed(4)
torch.manual_seed(4)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class Utterances(Dataset):
    def __init__(self, n=180):
        self.frames = [random.randint(60, 140) for _ in range(n)]
        self.frames[146] = 900

    def __len__(self):
        return len(self.frames)

    def __getitem__(self, i):
        n = self.frames[i]
        return torch.randn(n, 40), torch.randint(1, 29, (n // 12,))


def collate(batch):
    feats, targets = zip(*batch)
    feat_lens = torch.tensor([len(f) for f in feats])
    target_lens = torch.tensor([len(t) for t in targets])
    return pad_sequence(feats, batch_first=True), feat_lens, torch.cat(targets), target_lens


class AcousticModel(nn.Module):
    def __init__(self, ch=96, vocab=29):
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv1d(40 if i == 0 else ch, ch, 5, padding=2) for i in range(4)])
        self.out = nn.Linear(ch, vocab)

    def forward(self, x):
        h = x.transpose(1, 2)
        for conv in self.convs:
            h = F.relu(conv(h))
        return self.out(h.transpose(1, 2)).log_softmax(-1)


def main():
    loader = DataLoader(Utterances(), batch_size=4, shuffle=False, collate_fn=collate)
    model = AcousticModel().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step, (feats, feat_lens, targets, target_lens) in enumerate(loader):
        log_probs = model(feats.to(device)).transpose(0, 1)
        loss = F.ctc_loss(log_probs, targets.to(device), feat_lens, target_lens, zero_infinity=True)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        if step % 10 == 0:
            print(f"step {step:3d} frames {feats.shape[1]} loss {loss.item():.3f}")


if __name__ == "__main__":
    main()
