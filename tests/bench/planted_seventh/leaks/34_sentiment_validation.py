import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(12)
device = "cuda" if torch.cuda.is_available() else "cpu"


class SentimentModel(nn.Module):
    def __init__(self, vocab=600, dim=64, layers=4):
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)
        self.layers = nn.ModuleList(
            [nn.TransformerEncoderLayer(dim, 4, 4 * dim, batch_first=True, dropout=0.1) for _ in range(layers)]
        )
        self.classifier = nn.Linear(dim, 2)

    def forward(self, ids):
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x)
        return self.classifier(x[:, 0])


def batches(n, size, length=48):
    for _ in range(n):
        yield torch.randint(0, 600, (size, length), device=device), torch.randint(0, 2, (size,), device=device)


def validate(model):
    model.eval()
    correct, seen, loss_sum = 0, 0, 0.0
    for ids, labels in batches(3, 24):
        logits = model(ids)
        loss_sum += F.cross_entropy(logits, labels, reduction="sum").item()
        correct += (logits.argmax(-1) == labels).sum().item()
        seen += labels.numel()
    model.train()
    return loss_sum / seen, correct / seen


def main():
    model = SentimentModel().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    for epoch in range(3):
        for ids, labels in batches(10, 4):
            loss = F.cross_entropy(model(ids), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        val_loss, accuracy = validate(model)
        print(f"epoch {epoch} train {loss.item():.3f} val {val_loss:.3f} acc {accuracy:.2f}")


if __name__ == "__main__":
    main()
