import torch
from torch import nn

torch.manual_seed(1)
torch.set_num_threads(1)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

NUM_NODES, FEAT, HIDDEN = 400, 16, 48


def random_snapshot():
    src = torch.randint(0, NUM_NODES, (2400,), device=device)
    dst = torch.randint(0, NUM_NODES, (2400,), device=device)
    x = torch.randn(NUM_NODES, FEAT, device=device)
    y = x.mean(dim=1, keepdim=True)
    return x, torch.stack([src, dst]), y


class GraphConvGRU(nn.Module):
    def __init__(self):
        super().__init__()
        self.msg = nn.Linear(FEAT, HIDDEN)
        self.cell = nn.GRUCell(HIDDEN, HIDDEN)
        self.out = nn.Linear(HIDDEN, 1)

    def forward(self, x, edge_index, h):
        src, dst = edge_index
        messages = torch.relu(self.msg(x))[src]
        agg = torch.zeros(NUM_NODES, HIDDEN, device=x.device).index_add(0, dst, messages)
        h = self.cell(agg, h)
        return self.out(h), h


def train_epoch(model, optimizer, snapshots):
    model.train()
    h = torch.zeros(NUM_NODES, HIDDEN, device=device)
    total = 0.0
    for x, edge_index, y in snapshots:
        pred, h = model(x, edge_index, h.detach())
        loss = (pred - y).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total / len(snapshots)


def validate(model, snapshots):
    model.eval()
    h = torch.zeros(NUM_NODES, HIDDEN, device=device)
    total = 0.0
    for x, edge_index, y in snapshots:
        pred, h = model(x, edge_index, h)
        total += (pred - y).pow(2).mean().item()
    return total / len(snapshots)


def main():
    train_set = [random_snapshot() for _ in range(20)]
    val_set = [random_snapshot() for _ in range(30)]
    model = GraphConvGRU().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for epoch in range(4):
        train_mse = train_epoch(model, optimizer, train_set)
        val_mse = validate(model, val_set)
        print(f"epoch {epoch} train {train_mse:.4f} val {val_mse:.4f}")


if __name__ == "__main__":
    main()
