import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(36)
acc = Accelerator(cpu=True, gradient_accumulation_steps=2)
x = torch.randn(900, 32)
y = x[:, :3].argmax(1)
train = DataLoader(TensorDataset(x[:500], y[:500]), batch_size=25, shuffle=True)
valid = DataLoader(TensorDataset(x[500:], y[500:]), batch_size=25)
net = nn.Sequential(nn.Linear(32, 128), nn.Tanh(), nn.Linear(128, 2000))
net, opt, train, valid = acc.prepare(net, torch.optim.AdamW(net.parameters(), 1e-3), train, valid)


def evaluate():
    net.eval()
    preds, refs = [], []
    for a, b in valid:
        with torch.no_grad():
            p, r = acc.gather_for_metrics((net(a).argmax(-1), b))
        preds.append(p)
        refs.append(r)
    return (torch.cat(preds) == torch.cat(refs)).float().mean().item()


for epoch in range(6):
    net.train()
    for a, b in train:
        with acc.accumulate(net):
            loss = nn.functional.cross_entropy(net(a), b)
            acc.backward(loss)
            opt.step()
            opt.zero_grad()
    acc.print(epoch, f"{loss.item():.4f} {evaluate():.4f}")
