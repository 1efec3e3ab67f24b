import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)

CONFIG = {"classes": 80, "frames": 64, "mels": 32, "epochs": 3, "train_batches": 12, "valid_batches": 14}
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class FrameTagger(nn.Module):
    def __init__(self, mels, classes, ch=32):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv1d(mels, ch, 5, padding=2), nn.ReLU(), nn.Conv1d(ch, ch, 5, padding=2))
        self.head = nn.Conv1d(ch, classes, 1)

    def forward(self, mel):
        return self.head(F.relu(self.conv(mel)))


def clips(n, batch):
    for _ in range(n):
        mel = torch.randn(batch, CONFIG["mels"], CONFIG["frames"], device=device)
        label = (torch.rand(batch, CONFIG["classes"], CONFIG["frames"], device=device) > 0.95).float()
        yield mel, label


def train(model, optimizer, data_loader):
    model.train()
    running_loss = 0.0
    for i, (mel, label) in enumerate(data_loader):
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(model(mel), label)
        loss.backward()
        optimizer.step()
        running_loss += loss.item()
    return running_loss / (i + 1)


def mean_ap(pred, label):
    order = np.argsort(-pred, axis=0)
    hits = np.take_along_axis(label, order, axis=0)
    precision = hits.cumsum(0) / np.arange(1, len(hits) + 1)[:, None]
    return float(((precision * hits).sum(0) / np.maximum(hits.sum(0), 1)).mean())


@torch.no_grad()
def valid(model, data_loader):
    model.eval()
    pred, label = [], []
    running_loss = 0.0
    for i, (mel, labels) in enumerate(data_loader):
        outputs = model(mel)
        running_loss += F.binary_cross_entropy_with_logits(outputs, labels).item()
        pred.append(outputs)
        label.append(labels)
    scores = torch.cat([p.amax(dim=2) for p in pred]).sigmoid()
    truth = torch.cat([t.amax(dim=2) for t in label])
    return running_loss / (i + 1), mean_ap(scores.cpu().numpy(), truth.cpu().numpy())


def main():
    model = FrameTagger(CONFIG["mels"], CONFIG["classes"]).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for epoch in range(CONFIG["epochs"]):
        train_loss = train(model, optimizer, clips(CONFIG["train_batches"], 12))
        valid_loss, score = valid(model, clips(CONFIG["valid_batches"], 16))
        print(f"epoch {epoch}: train {train_loss:.4f} valid {valid_loss:.4f} cmAP {score:.4f}")


if __name__ == "__main__":
    main()
