import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(5)
trunk = nn.Sequential(nn.Linear(30, 200), nn.ReLU(), nn.Linear(200, 100), nn.ReLU())
head_a = nn.Linear(100, 5)
head_b = nn.Linear(100, 1)
params = [*trunk.parameters(), *head_a.parameters(), *head_b.parameters()]
opt = torch.optim.Adam(params, lr=1e-3)

for step in range(80):
    x = torch.randn(64, 30)
    h = trunk(x)
    la = nn.functional.cross_entropy(head_a(h), x[:, :5].argmax(1))
    lb = (head_b(h).squeeze(1) - x.norm(dim=1)).pow(2).mean()
    opt.zero_grad()
    la.backward(retain_graph=True)
    ga = torch.cat([p.grad.flatten() for p in trunk.parameters()])
    lb.backward()
    gb = torch.cat([p.grad.flatten() for p in trunk.parameters()]) - ga
    conflict = nn.functional.cosine_similarity(ga, gb, dim=0).item()
    if conflict < 0:
        proj = (ga @ gb) / gb.pow(2).sum() * gb
        off = 0
        for p in trunk.parameters():
            p.grad.sub_(proj[off:off + p.numel()].view_as(p))
            off += p.numel()
    opt.step()
    if step % 20 == 0:
        print(step, la.item(), lb.item(), conflict)
