import torch
from torch import nn

torch.manual_seed(150)
torch.set_num_threads(1)


class Uncertainty(nn.Module):
    """Homoscedastic weights for several tasks."""

    def __init__(self, tasks):
        super().__init__()
        self.log_var = nn.ParameterDict({t: nn.Parameter(torch.zeros(())) for t in tasks})

    def forward(self, losses):
        return sum(l * (-self.log_var[t]).exp() + self.log_var[t] for t, l in losses.items())


trunk = nn.Sequential(nn.Linear(40, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU())
heads = nn.ModuleDict({"depth": nn.Linear(64, 1), "label": nn.Linear(64, 7), "normal": nn.Linear(64, 3)})
weigh = Uncertainty(heads)
opt = torch.optim.Adam([*trunk.parameters(), *heads.parameters(), *weigh.parameters()], 1e-3)
history = []
for step in range(200):
    x = torch.randn(64, 40)
    h = trunk(x)
    losses = {
        "depth": (heads["depth"](h).squeeze(1) - x[:, 0]).abs().mean(),
        "label": nn.functional.cross_entropy(heads["label"](h), x[:, :7].argmax(1)),
        "normal": 1 - nn.functional.cosine_similarity(heads["normal"](h), x[:, 1:4]).mean(),
    }
    loss = weigh(losses)
    opt.zero_grad()
    loss.backward()
    opt.step()
    history.append(loss)
    if step % 50 == 49:
        recent = torch.stack(history[-50:]).detach().mean().item()
        print(step, round(recent, 4), {t: round(v.item(), 3) for t, v in weigh.log_var.items()})
