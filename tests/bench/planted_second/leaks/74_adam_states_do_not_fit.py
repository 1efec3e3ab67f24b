import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)


class Adam32(torch.optim.Optimizer):
    """Adam with float32 moments and a float32 master copy, for bfloat16 weights."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999)):
        super().__init__(params, {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            b1, b2 = group["betas"]
            for p in group["params"]:
                s = self.state[p]
                if not s:
                    s["master"] = p.float().clone()  # LEAK
                    s["m"] = torch.zeros_like(p, dtype=torch.float32)
                    s["v"] = torch.zeros_like(p, dtype=torch.float32)
                g = p.grad.float()
                s["m"].lerp_(g, 1 - b1)
                s["v"].mul_(b2).addcmul_(g, g, value=1 - b2)
                s["master"].addcdiv_(s["m"], s["v"].sqrt().add_(1e-8), value=-group["lr"])
                p.copy_(s["master"])


model = nn.Sequential(*[m for _ in range(6) for m in (nn.Linear(512, 512), nn.GELU())], nn.Linear(512, 8)).to(torch.bfloat16)
opt = Adam32(model.parameters(), lr=1e-4)
for step in range(20):
    x = torch.randn(16, 512, dtype=torch.bfloat16)
    loss = nn.functional.cross_entropy(model(x).float(), x[:, :8].argmax(1))
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 5 == 0:
        print(step, loss.item())
