import torch
import torch.nn.functional as F
from torch import nn


class Module(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(80, 160), nn.ReLU(), nn.Linear(160, 50))
        self.step_outputs = []

    def training_step(self, batch):
        x, y = batch
        logits = self.body(x)
        loss = F.cross_entropy(logits, y)
        hits = (logits.argmax(1) == y).sum()
        self.step_outputs.append({"loss": loss.detach(), "hits": hits, "n": len(y)})
        return loss

    def on_train_epoch_end(self):
        n = sum(o["n"] for o in self.step_outputs)
        loss = torch.stack([o["loss"] for o in self.step_outputs]).mean().item()
        acc = sum(o["hits"] for o in self.step_outputs).item() / n
        self.step_outputs.clear()
        return {"loss": round(loss, 4), "acc": round(acc, 4)}


torch.manual_seed(0)
torch.set_num_threads(1)
module = Module()
opt = torch.optim.SGD(module.parameters(), lr=0.1)
for epoch in range(5):
    for _ in range(24):
        x = torch.randn(64, 80)
        loss = module.training_step((x, x[:, :50].argmax(1)))
        opt.zero_grad()
        loss.backward()
        opt.step()
    print(epoch, module.on_train_epoch_end())
