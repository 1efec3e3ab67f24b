import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(42)
device = "cuda" if torch.cuda.is_available() else "cpu"


class SentimentModel(nn.Module):
    def __init__(self, vocab=600, dim=64, layers=3):
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


def batches(n, size, length=40):
    for _ in range(n):
        yield torch.randint(0, 600, (size, length), device=device), torch.randint(0, 2, (size,), device=device)


@torch.inference_mode()
def validate(model):
    model.eval()
    confusion = torch.zeros(2, 2, dtype=torch.long, device=device)
    for ids, labels in batches(5, 4):
        predictions = model(ids).argmax(-1)
        confusion += torch.bincount(labels * 2 + predictions, minlength=4).view(2, 2)
    model.train()
    return confusion.tolist()


def main():
    model = SentimentModel().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    for epoch in range(4):
        for ids, labels in batches(10, 4):
            loss = F.cross_entropy(model(ids), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch} train {loss.item():.3f} confusion {validate(model)}")


if __name__ == "__main__":
    main()
