import copy

import torch
from torch import nn

torch.manual_seed(123)
torch.set_num_threads(1)


class MeanTeacher:
    def __init__(self, student, decay=0.98):
        self.student = student
        self.teacher = copy.deepcopy(student).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self):
        for t, s in zip(self.teacher.parameters(), self.student.parameters()):
            t.mul_(self.decay).add_(s, alpha=1 - self.decay)

    @torch.no_grad()
    def targets(self, x):
        return self.teacher(x).softmax(1)

    def loss(self, x, y, unlabelled, weight):
        hard = nn.functional.cross_entropy(self.student(x), y)
        noisy = unlabelled + 0.1 * torch.randn_like(unlabelled)
        soft = (self.student(noisy).softmax(1) - self.targets(unlabelled)).pow(2).mean()
        return hard + weight * soft


student = nn.Sequential(nn.Linear(40, 300), nn.ReLU(), nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, 4))
mt = MeanTeacher(student)
opt = torch.optim.Adam(student.parameters(), 1e-3)
weights = []
for step in range(60):
    x = torch.randn(16, 40)
    weights.append(min(1.0, step / 30) * 5)
    loss = mt.loss(x, x[:, :4].argmax(1), torch.randn(256, 40), weights[-1])
    opt.zero_grad(set_to_none=True)
    loss.backward()
    opt.step()
    mt.update()
    if step % 20 == 0:
        print(step, weights[-1], loss.item())
