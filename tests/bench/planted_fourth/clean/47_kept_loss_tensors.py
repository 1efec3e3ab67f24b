import torch
from torch import nn

torch.manual_seed(147)
torch.set_num_threads(1)


def epoch(model, opt, n):
    losses = []
    for _ in range(n):
        x = torch.randn(64, 32)
        y = x.roll(1, 1)
        loss = nn.functional.smooth_l1_loss(model(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(loss.detach())
    losses = torch.stack(losses)
    return losses.mean().item(), losses.std().item()


def main():
    model = nn.Sequential(nn.Linear(32, 256), nn.Mish(), nn.Linear(256, 256), nn.Mish(), nn.Linear(256, 32))
    opt = torch.optim.RAdam(model.parameters(), 1e-3)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(opt, patience=1)
    table = []
    for e in range(6):
        mean, std = epoch(model, opt, 16)
        plateau.step(mean)
        table.append((e, mean, std, opt.param_groups[0]["lr"]))
    for row in table:
        print(*row)


main()
