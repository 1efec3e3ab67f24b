import torch
from torch import nn
from torch.func import functional_call

torch.manual_seed(5)
torch.set_num_threads(1)


class Sine:
    def __init__(self, task_id):
        g = torch.Generator().manual_seed(task_id)
        self.task_id = task_id
        self.amp = 0.5 + 4 * torch.rand(1, generator=g)
        self.phase = 3 * torch.rand(1, generator=g)

    def sample(self, n):
        x = 10 * torch.rand(n, 1) - 5
        return x, self.amp * torch.sin(x + self.phase)


class Learner:
    def __init__(self, inner_lr=0.02):
        self.net = nn.Sequential(nn.Linear(1, 80), nn.Tanh(), nn.Linear(80, 80), nn.Tanh(), nn.Linear(80, 1))
        self.opt = torch.optim.Adam(self.net.parameters(), 1e-3)
        self.inner_lr = inner_lr
        self.adapted = {}

    def adapt(self, task, steps=2):
        fast = dict(self.net.named_parameters())
        for _ in range(steps):
            x, y = task.sample(40)
            loss = (functional_call(self.net, fast, (x,)) - y).pow(2).mean()
            grads = torch.autograd.grad(loss, list(fast.values()), create_graph=True)
            fast = {k: w - self.inner_lr * g for (k, w), g in zip(fast.items(), grads)}
        self.adapted[task.task_id] = fast
        return fast

    def meta_step(self, tasks):
        outer = 0.0
        for task in tasks:
            x, y = task.sample(40)
            outer = outer + (functional_call(self.net, self.adapt(task), (x,)) - y).pow(2).mean()
        self.opt.zero_grad()
        outer.backward()
        self.opt.step()
        return outer.item() / len(tasks)


learner = Learner()
for step in range(40):
    value = learner.meta_step([Sine(step * 3 + i) for i in range(3)])
    if step % 10 == 0:
        print(step, round(value, 4), "tasks seen", len(learner.adapted))
