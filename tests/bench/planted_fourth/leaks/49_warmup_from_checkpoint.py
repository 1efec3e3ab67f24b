import io

import torch
from torch import nn

torch.manual_seed(58)
torch.set_num_threads(1)


def network():
    return nn.Sequential(nn.Linear(50, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 5))


def data(n=64):
    x = torch.randn(n, 50)
    return x, x[:, :5].argmax(1)


def run(model, opt, sched, steps):
    for _ in range(steps):
        x, y = data()
        loss = nn.functional.cross_entropy(model(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        sched.step()
    return loss.item()


def first_half(steps=15):
    model = network()
    opt = torch.optim.AdamW(model.parameters(), 1e-3)
    sched = torch.optim.lr_scheduler.ConstantLR(opt, 1.0)
    print("first half", run(model, opt, sched, steps))
    file = io.BytesIO()
    weights = model.state_dict()
    torch.save({"model": weights, "ema": {k: v * 0.99 for k, v in weights.items()}, "best": {k: v.clone() for k, v in weights.items()}, "opt": opt.state_dict(), "step": steps}, file)
    return file.getvalue()


def resume(blob):
    ckpt = torch.load(io.BytesIO(blob))
    model = network()
    model.load_state_dict(ckpt["model"])
    opt = torch.optim.AdamW(model.parameters(), 1e-3)
    opt.load_state_dict(ckpt["opt"])

    def factor(s):
        return 1.0 / (1.0 + 0.05 * (s + ckpt["step"]))

    return model, opt, torch.optim.lr_scheduler.LambdaLR(opt, factor)


blob = first_half()
model, opt, sched = resume(blob)
print("second half", run(model, opt, sched, 40))
