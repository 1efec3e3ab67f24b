import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def main():
    torch.set_num_threads(1)
    torch.manual_seed(30)
    acc = Accelerator(cpu=True, gradient_accumulation_steps=2)
    x = torch.randn(320, 1, 16, 16)
    y = (x.mean((1, 2, 3)) > 0).long()
    loader = DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True)
    net = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(784, 2))
    opt = torch.optim.AdamW(net.parameters(), lr=2e-3)
    sched = torch.optim.lr_scheduler.LinearLR(opt, 1.0, 0.1, 40)
    net, opt, loader, sched = acc.prepare(net, opt, loader, sched)
    for epoch in range(2):
        right = seen = 0
        for bx, by in loader:
            with acc.accumulate(net):
                out = net(bx)
                loss = nn.functional.cross_entropy(out, by)
                acc.backward(loss)
                opt.step()
                sched.step()
                opt.zero_grad()
            p, t = acc.gather_for_metrics((out.argmax(1), by))
            right += (p == t).sum().item()
            seen += len(t)
        acc.print(epoch, loss.item(), right / seen)
    acc.free_memory()


main()
