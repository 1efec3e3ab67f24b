import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(8)
device = "cuda" if torch.cuda.is_available() else "cpu"


class NonFiniteLoss(RuntimeError):
    pass


class Seq2Label(nn.Module):
    def __init__(self, vocab=300, dim=64, labels=12):
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)
        layer = nn.TransformerEncoderLayer(dim, 4, 128, batch_first=True, dropout=0.0)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(dim, labels)

    def forward(self, ids, scale):
        return self.head(self.encoder(self.embed(ids))) * scale


def make_batch(step):
    ids = torch.randint(0, 300, (4, 48), device=device)
    tags = torch.randint(0, 12, (4, 48), device=device)
    scale = torch.tensor(float("inf") if step % 4 == 1 else 1.0, device=device)
    return ids, tags, scale


def train_step(model, optimizer, batch):
    ids, tags, scale = batch
    logits = model(ids, scale)
    loss = F.cross_entropy(logits.flatten(0, 1), tags.flatten())
    if not torch.isfinite(loss):
        raise NonFiniteLoss(f"loss is {loss.item()}")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def main():
    model = Seq2Label().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    skipped = []
    for step in range(60):
        try:
            loss = train_step(model, optimizer, make_batch(step))
        except NonFiniteLoss as error:
            skipped.append((step, error))
            continue
        if step % 10 == 0:
            print(step, round(loss, 4))
    print(f"{len(skipped)} batches skipped, the last because {skipped[-1][1]}")


if __name__ == "__main__":
    main()
