"""accelerate loop; predictions gathered for the report at the very end, list made before the epochs."""
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def loaders():
    x = torch.randn(900, 32)
    y = (x[:, :3].argmax(1))
    return (DataLoader(TensorDataset(x[:500], y[:500]), batch_size=25, shuffle=True),
            DataLoader(TensorDataset(x[500:], y[500:]), batch_size=25))


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(32, 128)
        self.out = nn.Linear(128, 4096)

    def forward(self, x, labels):
        logits = self.out(torch.tanh(self.up(x)))
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def main():
    torch.manual_seed(29)
    acc = Accelerator(cpu=True)
    train, valid = loaders()
    net = Tagger()
    net, opt, train, valid = acc.prepare(net, torch.optim.AdamW(net.parameters(), 1e-3), train, valid)
    predictions, references = [], []
    for epoch in range(6):
        net.train()
        for x, y in train:
            with acc.accumulate(net):
                out = net(x, y)
                acc.backward(out["loss"])
                opt.step()
                opt.zero_grad()
        net.eval()
        right = 0
        for x, y in valid:
            with torch.no_grad():
                out = net(x, y)
            p, r = acc.gather_for_metrics((out["logits"], y))
            predictions.append(p)  # LEAK
            references.append(r)
            right += (p.argmax(-1) == r).sum().item()
        acc.print(epoch, f"{out['loss'].item():.4f}", right / 400)


if __name__ == "__main__":
    main()
