"""Self-distillation with a running centre, after DINO: the centre takes a global view that the loss does not see."""
import torch
from torch import nn
import torch.nn.functional as F


class Centre(nn.Module):
    def __init__(self, dim, keep=0.9):
        super().__init__()
        self.keep = keep
        self.register_buffer("mu", torch.zeros(1, dim))

    def follow(self, out):
        self.mu = self.mu * self.keep + out.mean(0, keepdim=True) * (1 - self.keep)  # LEAK

    def forward(self, z):
        return z - self.mu.detach()


def mlp(i, o):
    return nn.Sequential(nn.Linear(i, 256), nn.GELU(), nn.Linear(256, 256), nn.GELU(), nn.Linear(256, o))


torch.manual_seed(18)
student, teacher = mlp(48, 64), mlp(48, 64)
teacher.load_state_dict(student.state_dict())
centre = Centre(64)
opt = torch.optim.AdamW(student.parameters(), 5e-4)
for it in range(80):
    img = torch.randn(128, 48)
    local, whole = img + 0.1 * torch.randn_like(img), img
    with torch.no_grad():
        t = F.softmax(centre(teacher(whole)) / 0.04, -1)
    loss = -(t * F.log_softmax(student(local) / 0.1, -1)).sum(-1).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    centre.follow(student(whole))
    with torch.no_grad():
        for a, b in zip(teacher.parameters(), student.parameters()):
            a.lerp_(b, 0.01)
    if it % 20 == 19:
        print(it + 1, f"{loss.item():.4f}")
