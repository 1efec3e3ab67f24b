import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(0)
torch.set_num_threads(1)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def mlp(width, depth):
    layers, d = [], 64
    for _ in range(depth):
        layers += [nn.Linear(d, width), nn.LayerNorm(width), nn.GELU()]
        d = width
    return nn.Sequential(*layers, nn.Linear(d, 20))


teacher = mlp(256, 8).to(device).eval()
student = mlp(48, 2).to(device)
optimizer = torch.optim.Adam(student.parameters(), lr=1e-3)
T = 4.0

for step in range(40):
    x = torch.randn(512, 64, device=device)
    y = x[:, :20].argmax(1)
    t_logits = teacher(x)  # LEAK
    s_logits = student(x)
    hard = F.cross_entropy(s_logits, y)
    soft = F.kl_div(F.log_softmax(s_logits / T, -1), F.softmax(t_logits / T, -1), reduction="batchmean") * T * T
    loss = 0.3 * hard + 0.7 * soft
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 10 == 0:
        print(step, hard.item(), soft.item())
