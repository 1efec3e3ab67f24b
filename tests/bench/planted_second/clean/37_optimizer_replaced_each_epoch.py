import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)


class CyclicTrainer:
    def __init__(self, model):
        self.model = model
        self.optimizer = self.scheduler = None
        self.log = []

    def restart(self, lr):
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=lr)
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, max_lr=lr, total_steps=9)

    def cycle(self, lr):
        self.restart(lr)
        for _ in range(8):
            x = torch.randn(32, 64)
            loss = nn.functional.cross_entropy(self.model(x), x[:, :10].argmax(1))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.scheduler.step()
        self.log.append((lr, loss.item(), self.scheduler.get_last_lr()[0]))


trainer = CyclicTrainer(nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)))
for i in range(14):
    trainer.cycle(2e-3 * 0.9**i)
    print(i, trainer.log[-1])
