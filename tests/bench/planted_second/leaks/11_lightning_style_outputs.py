import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)


class LitClassifier(nn.Module):
    """What is left of our LightningModule after moving to a loop of our own."""

    def __init__(self, n_in=128, n_classes=200):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(n_in, 256), nn.ReLU(), nn.Linear(256, n_classes))
        self.training_step_outputs = []

    def training_step(self, batch, batch_idx):
        x, y = batch
        logits = self.body(x)
        loss = F.cross_entropy(logits, y)
        self.training_step_outputs.append({"loss": loss.detach(), "preds": logits.detach(), "target": y})  # LEAK
        return loss

    def on_train_epoch_end(self):
        acc = torch.stack([(o["preds"].argmax(1) == o["target"]).float().mean() for o in self.training_step_outputs])
        loss = torch.stack([o["loss"] for o in self.training_step_outputs])
        print(f"  acc {acc.mean():.3f} loss {loss.mean():.3f} over {len(acc)} steps")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Loop:
    def __init__(self, max_epochs, steps):
        self.max_epochs, self.steps = max_epochs, steps

    def fit(self, module):
        opt = module.configure_optimizers()
        for epoch in range(self.max_epochs):
            for i in range(self.steps):
                x = torch.randn(64, 128)
                y = (x[:, 0].sigmoid() * 200).long()
                loss = module.training_step((x, y), i)
                opt.zero_grad()
                loss.backward()
                opt.step()
            print("epoch", epoch)
            module.on_train_epoch_end()


torch.manual_seed(7)
Loop(max_epochs=4, steps=25).fit(LitClassifier())
