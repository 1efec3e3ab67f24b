import torch
from torch import nn

torch.manual_seed(1)
torch.set_num_threads(1)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
NODES, FEAT, HIDDEN = 300, 16, 48


class NodeMemory(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(FEAT, HIDDEN)
        self.readout = nn.Linear(HIDDEN, 1)
        self.memory = torch.zeros(NODES, HIDDEN, device=device)

    def detach_memory(self):
        self.memory = self.memory.detach()

    def reset_memory(self):
        self.memory = torch.zeros(NODES, HIDDEN, device=device)

    def forward(self, nodes, feats):
        updated = self.cell(feats, self.memory[nodes])
        self.memory = self.memory.index_copy(0, nodes, updated)
        return self.readout(self.memory[nodes]).squeeze(-1)


def events(n):
    for _ in range(n):
        yield torch.randperm(NODES, device=device)[:200], torch.randn(200, FEAT, device=device)


model = NodeMemory().to(device)
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
window = 6

for epoch in range(3):
    model.train()
    model.reset_memory()
    pending = []
    for i, (nodes, feats) in enumerate(events(36), start=1):
        pending.append((model(nodes, feats) - feats.mean(1)).pow(2).mean())
        if i % window == 0:
            loss = torch.stack(pending).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            pending.clear()
            model.detach_memory()
    model.eval()
    model.reset_memory()
    errors = []
    with torch.no_grad():
        for nodes, feats in events(30):
            errors.append((model(nodes, feats) - feats.mean(1)).pow(2).mean())
    print(f"epoch {epoch} loss {loss.item():.4f} val {torch.stack(errors).mean().item():.4f}")
