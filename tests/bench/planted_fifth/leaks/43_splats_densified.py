import torch
from torch import nn

torch.manual_seed(43)
torch.set_num_threads(1)


class Splats:
    def __init__(self, n=1500):
        self.means = nn.Parameter(torch.rand(n, 2))
        self.colours = nn.Parameter(torch.rand(n, 24))
        self.optimizer = torch.optim.Adam(
            [{"params": [self.means], "name": "means", "lr": 1e-3}, {"params": [self.colours], "name": "colours", "lr": 1e-2}]
        )

    def render(self, points):
        d = torch.cdist(points, self.means)
        w = (-400 * d.pow(2)).softmax(1)
        return w @ self.colours

    def replace(self, name, value):
        group = next(g for g in self.optimizer.param_groups if g["name"] == name)
        old = group["params"][0]
        state = self.optimizer.state[old]
        new = nn.Parameter(value)
        group["params"] = [new]
        fresh = {"step": state["step"], "exp_avg": torch.zeros_like(new), "exp_avg_sq": torch.zeros_like(new)}
        self.optimizer.state[new] = fresh
        setattr(self, name, new)

    @torch.no_grad()
    def densify(self, share=0.02):
        k = int(share * len(self.means))
        dead = torch.randperm(len(self.means))[k:]
        chosen = torch.randint(len(self.means), (k,))
        for name in ("means", "colours"):
            old = getattr(self, name)
            self.replace(name, torch.cat([old[dead], old[chosen] + 0.01 * torch.randn(k, old.shape[1])]))


scene = Splats()
for it in range(100):
    points = torch.rand(64, 2)
    target = (points @ torch.ones(2, 24)).sin()
    loss = (scene.render(points) - target).abs().mean()
    scene.optimizer.zero_grad()
    loss.backward()
    scene.optimizer.step()
    if it % 4 == 3:
        scene.densify()
    if it % 25 == 0:
        print(it, loss.item(), len(scene.means))
