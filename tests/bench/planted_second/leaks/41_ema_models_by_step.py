from copy import deepcopy

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)


class EMA:
    def __init__(self, model, decay=0.9):
        self.decay = decay
        self.shadows = {0: deepcopy(model).eval()}
        self.step = 0

    @torch.no_grad()
    def update(self, model):
        new = deepcopy(self.shadows[self.step])
        for s, p in zip(new.parameters(), model.parameters()):
            s.copy_(self.decay * s + (1 - self.decay) * p)
        self.step += 1
        self.shadows[self.step] = new  # LEAK

    @property
    def current(self):
        return self.shadows[self.step]


student = nn.Sequential(nn.Linear(30, 120), nn.ReLU(), nn.Linear(120, 120), nn.ReLU(), nn.Linear(120, 12))
ema = EMA(student)
opt = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9)

for step in range(100):
    labelled, unlabelled = torch.randn(16, 30), torch.randn(48, 30)
    target = labelled[:, :12].argmax(1)
    sup = nn.functional.cross_entropy(student(labelled), target)
    with torch.no_grad():
        pseudo = ema.current(unlabelled).softmax(1)
    cons = (student(unlabelled + 0.1 * torch.randn_like(unlabelled)).softmax(1) - pseudo).pow(2).sum(1).mean()
    loss = sup + min(1.0, step / 40) * cons
    opt.zero_grad()
    loss.backward()
    opt.step()
    ema.update(student)
    if step % 25 == 0:
        print(step, sup.item(), cons.item())
