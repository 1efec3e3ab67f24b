import random
import torch
from torch import nn

random.seed(12)
torch.manual_seed(12)
net = nn.ModuleDict({"e": nn.Embedding(300, 64), "r": nn.GRU(64, 96, batch_first=True), "o": nn.Linear(96, 300)})
opt = torch.optim.Adam(net.parameters(), 1e-3)
recent = []
for step in range(100):
    n = random.choice([10, 20, 40, 80, 120]) if step else 120
    ids = torch.randint(0, 300, (random.randint(2, 10), n))
    logits = net["o"](net["r"](net["e"](ids[:, :-1]))[0])
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    opt.step()
    opt.zero_grad(set_to_none=True)
    recent = (recent + [loss.item()])[-20:]
    if step % 25 == 24:
        print(step + 1, f"{sum(recent) / len(recent):.4f}")
