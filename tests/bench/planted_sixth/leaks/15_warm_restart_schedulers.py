import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class PatchClassifier(nn.Module):
    def __init__(self, dim=224, classes=10):
        super().__init__()
        self.embed = nn.Conv2d(3, dim, 8, stride=8)
        self.mix = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))
        self.head = nn.Linear(dim, classes)

    def forward(self, x):
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        return self.head((tokens + self.mix(tokens)).mean(1))


class CyclicTrainer:
    def __init__(self, model, base_lr=1e-3):
        self.model = model.to(device)
        self.base_lr = base_lr
        self.schedulers = []
        self.lr_history = []

    def new_cycle(self, cycle):
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=self.base_lr * 0.9**cycle, weight_decay=0.01)
        self.schedulers.append(ReduceLROnPlateau(optimizer, patience=1, factor=0.5))
        return optimizer

    def run_cycle(self, cycle, steps):
        optimizer = self.new_cycle(cycle)
        for _ in range(steps):
            x = torch.rand(8, 3, 32, 32, device=device)
            y = torch.randint(0, 10, (8,), device=device)
            loss = F.cross_entropy(self.model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            self.schedulers[-1].step(loss.item())
        self.lr_history.append(optimizer.param_groups[0]["lr"])
        return loss.item()


def main():
    trainer = CyclicTrainer(PatchClassifier())
    for cycle in range(15):
        loss = trainer.run_cycle(cycle, steps=6)
        print(f"cycle {cycle} loss {loss:.4f} lr {trainer.lr_history[-1]:.2e}")


if __name__ == "__main__":
    main()
