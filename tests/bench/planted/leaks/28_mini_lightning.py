import torch
from torch import nn


class Module(nn.Module):
    def training_step(self, batch):
        raise NotImplementedError

    def validation_step(self, batch):
        raise NotImplementedError

    def validation_epoch_end(self, outputs):
        pass


class EvalLoop:
    def __init__(self):
        self.outputs = []

    @torch.no_grad()
    def run(self, module, batches):
        self.outputs = []
        module.eval()
        for b in batches:
            self.outputs.append(module.validation_step(b))  # LEAK
        module.validation_epoch_end(self.outputs)
        module.train()


class MiniTrainer:
    def __init__(self, epochs):
        self.epochs, self.loop = epochs, EvalLoop()

    def fit(self, module, train, val):
        opt = module.configure_optimizers()
        for _ in range(self.epochs):
            for b in train:
                loss = module.training_step(b)
                opt.zero_grad()
                loss.backward()
                opt.step()
            self.loop.run(module, val)
            print("val loss", module.val_total / max(1, module.val_n))


class AudioNet(Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv1d(1, 24, 9, 2, 4), nn.ReLU(), nn.Conv1d(24, 24, 9, 1, 4))
        self.val_total, self.val_n = 0.0, 0

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)

    def training_step(self, wav):
        return self.body(wav).pow(2).mean() + (self.body(wav).mean() - 0.5) ** 2

    def validation_step(self, wav):
        feat = self.body(wav)
        loss = feat.pow(2).mean()
        self.val_total += loss.item()
        self.val_n += 1
        return {"loss": loss, "feat": feat, "wav": wav}


torch.set_num_threads(1)
torch.manual_seed(55)
train = [torch.randn(4, 1, 400) for _ in range(10)]
val = [(lambda s: torch.randn(8, 1, 800, generator=torch.Generator().manual_seed(s)))(i) for i in range(24)]
MiniTrainer(5).fit(AudioNet(), train, val)
