import argparse
import torch
from torch import nn
import torch.nn.functional as F


class CharRNN(nn.Module):
    def __init__(self, vocab, hidden):
        super().__init__()
        self.emb = nn.Embedding(vocab, 32)
        self.rnn = nn.GRU(32, hidden, batch_first=True)
        self.out = nn.Linear(hidden, vocab)

    def forward(self, idx, h):
        y, h = self.rnn(self.emb(idx), h)
        return self.out(y), h


def windows(text, bsz, width):
    ids = torch.tensor([ord(c) % 64 for c in text])
    per = len(ids) // bsz
    ids = ids[: per * bsz].view(bsz, per)
    for i in range(0, per - width - 1, width):
        yield ids[:, i:i + width], ids[:, i + 1:i + 1 + width]


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--hidden", type=int, default=48)
    ap.add_argument("--lr", type=float, default=0.1)
    ap.add_argument("--width", type=int, default=8)
    args = ap.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(7)
    text = "the quick brown fox jumps over the lazy dog. " * 57
    net = CharRNN(64, args.hidden)
    h = torch.zeros(1, 8, args.hidden)
    for n, (x, y) in enumerate(windows(text, 8, args.width)):
        logits, h = net(x, h)  # LEAK
        loss = F.cross_entropy(logits.flatten(0, 1), y.flatten())
        for p in net.parameters():
            p.grad = None
        loss.backward(retain_graph=True)
        with torch.no_grad():
            for p in net.parameters():
                p.data = p.data - args.lr * p.grad
        if n % 10 == 0:
            print(n, round(loss.item(), 4))


if __name__ == "__main__":
    main()
