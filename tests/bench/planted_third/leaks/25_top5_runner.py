import torch
from torch import nn

torch.manual_seed(25)
torch.set_num_threads(1)


class Runner:
    def __init__(self, width=256, classes=1200):
        self.net = nn.Sequential(nn.Linear(128, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, classes))
        self.classes = classes
        self.opt = torch.optim.SGD(self.net.parameters(), lr=0.1, momentum=0.9)
        g = torch.Generator().manual_seed(0)
        self.val_x = torch.randn(2500, 128, generator=g)
        self.val_y = torch.randint(0, classes, (2500,), generator=g)
        self.eval_logits = None

    def train_epoch(self, steps=6, batch=768):
        self.net.train()
        for _ in range(steps):
            x = torch.randn(batch, 128)
            y = torch.randint(0, self.classes, (batch,))
            loss = nn.functional.cross_entropy(self.net(x), y)
            self.opt.zero_grad()
            loss.backward()
            self.opt.step()
        return loss.item()

    @torch.no_grad()
    def evaluate(self):
        self.net.eval()
        self.eval_logits = self.net(self.val_x)
        return self.top_k(5)

    def top_k(self, k):
        best = self.eval_logits.topk(k, 1).indices
        return (best == self.val_y[:, None]).any(1).float().mean().item()


if __name__ == "__main__":
    runner = Runner()
    for epoch in range(4):
        loss = runner.train_epoch()
        print(f"epoch {epoch} loss {loss:.3f} top-5 {runner.evaluate():.4f}")
