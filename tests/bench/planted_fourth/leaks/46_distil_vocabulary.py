import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(55)
torch.set_num_threads(1)
V, D = 4000, 40


def lm(width):
    return nn.Sequential(nn.Embedding(V, width), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, V, bias=False)).bfloat16()


def distil(student_logits, teacher_logits, tau=2.0):
    s = F.log_softmax(student_logits.float() / tau, dim=-1)
    t = F.log_softmax(teacher_logits.float() / tau, dim=-1)
    p = t.exp()
    return tau * tau * (p * (t - s)).sum(-1).mean()


def hard(student_logits, target):
    return F.cross_entropy(student_logits.flatten(0, 1), target.flatten())


teacher, student = lm(D), lm(D // 2)
for p in teacher.parameters():
    p.requires_grad = False
opt = torch.optim.SGD(student.parameters(), 0.3)

for step in range(30):
    ids = torch.randint(V, (4, 33))
    x, y = ids[:, :-1], ids[:, 1:]
    s_logits = student(x)
    loss = hard(s_logits, y)
    if step >= 6:
        with torch.no_grad():
            t_logits = teacher(x)
        loss = 0.5 * loss + 0.5 * distil(s_logits, t_logits)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 6 == 0:
        print(step, loss.item())
