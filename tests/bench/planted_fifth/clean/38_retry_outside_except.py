import torch
from torch import nn

torch.manual_seed(138)
torch.set_num_threads(1)


class Overflow(RuntimeError):
    pass


def attempt(net, x):
    hidden = net[1](net[0](x))
    if hidden.abs().amax() > 9:
        raise Overflow(f"activation {hidden.abs().amax().item():.1f}")
    return nn.functional.mse_loss(net[2](hidden), x[:, :4].sign())


net = nn.Sequential(nn.Linear(32, 160), nn.ReLU(), nn.Linear(160, 4))
opt = torch.optim.SGD(net.parameters(), lr=0.01)
messages = []
for step in range(80):
    x = torch.randn(64, 32) * (8 if step % 2 else 1)
    loss = None
    for scale in (1.0, 0.5, 0.1):
        try:
            loss = attempt(net, x * scale)
            break
        except Overflow as error:
            messages.append(str(error))
    if loss is None:
        continue
    opt.zero_grad()
    loss.backward()
    opt.step()
print("failed attempts", len(messages), messages[:1])
