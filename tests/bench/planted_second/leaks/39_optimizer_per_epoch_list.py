import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)


class CyclicTrainer:
    """Warm restarts: a fresh AdamW (and schedule) for each cycle."""

    def __init__(self, model, lrs):
        self.model = model
        self.lrs = lrs
        self.optimizers = []
        self.schedulers = []

    def new_cycle(self, lr):
        opt = torch.optim.AdamW(self.model.parameters(), lr=lr)
        self.optimizers.append(opt)  # LEAK
        self.schedulers.append(torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=8))

    def run(self):
        for cycle, lr in enumerate(self.lrs):
            self.new_cycle(lr)
            opt, sched = self.optimizers[-1], self.schedulers[-1]
            for _ in range(8):
                x = torch.randn(32, 64)
                loss = nn.functional.cross_entropy(self.model(x), x[:, :10].argmax(1))
                opt.zero_grad()
                loss.backward()
                opt.step()
                sched.step()
            print(f"cycle {cycle} lr {lr:g} loss {loss.item():.4f}")


model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
CyclicTrainer(model, [1e-3 * 0.9**i for i in range(14)]).run()
