import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(0)
torch.set_num_threads(1)


class Net(nn.Module):
    def __init__(self, width=200):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(36, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 9))
        self.__dict__["teacher"] = None

    def forward(self, x):
        return self.f(x)

    def set_teacher(self, teacher):
        for p in teacher.parameters():
            p.requires_grad_(False)
        self.__dict__["teacher"] = teacher.eval()  # LEAK   not a submodule, must not be saved


def train_generation(student, steps=8, tau=2.0):
    opt = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9)
    for _ in range(steps):
        x = torch.randn(64, 36)
        y = x[:, :9].argmax(1)
        out = student(x)
        loss = F.cross_entropy(out, y)
        if student.teacher is not None:
            with torch.no_grad():
                soft = F.softmax(student.teacher(x) / tau, 1)
            loss = 0.5 * loss + 0.5 * tau**2 * F.kl_div(F.log_softmax(out / tau, 1), soft, reduction="batchmean")
        opt.zero_grad()
        loss.backward()
        opt.step()
    return loss.item()


previous = None
for generation in range(16):
    student = Net()
    if previous is not None:
        student.set_teacher(previous)
    final = train_generation(student)
    print(f"generation {generation}: {final:.4f}")
    previous = student
