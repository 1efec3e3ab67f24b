import torch
import torch.nn.functional as F
from torch import nn


def hierarchical_loss(logits, labels, scales):
    maps = {1: (logits, labels)}

    def at(scale):  # LEAK
        if scale not in maps:
            lg, lb = at(scale // 2)
            maps[scale] = (F.avg_pool1d(lg, 2), lb[:, ::2])
        return maps[scale]

    total = 0
    for s in scales:
        lg, lb = at(s)
        total = total + F.cross_entropy(lg, lb)
    return total / len(scales)


class Tagger(nn.Module):
    def __init__(self, n_mels=40, classes=12, width=64):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv1d(n_mels, width, 5, padding=2), nn.GELU(),
            nn.Conv1d(width, width, 5, padding=2), nn.GELU(),
            nn.Conv1d(width, classes, 1),
        )

    def forward(self, mel):
        return self.net(mel)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(8)
    model = Tagger()
    opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(75):
        mel = torch.randn(8, 40, 128)
        labels = mel[:, :12].argmax(1)
        loss = hierarchical_loss(model(mel), labels, scales=(1, 2))
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 25 == 0:
            print(f"step={step} loss={loss.item():.4f}")
