import torch
from torch import nn

torch.manual_seed(102)
torch.set_num_threads(1)


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.pi = nn.GRUCell(24, 128), nn.Linear(128, 4)

    def forward(self, obs, h):
        h = self.cell(obs, h)
        return self.pi(h), h


policy = Policy()
opt = torch.optim.RMSprop(policy.parameters(), 1e-3)
obs, hidden = torch.randn(16, 24), torch.zeros(16, 128)
for it in range(50):
    start, rows = hidden, []
    with torch.no_grad():
        for _ in range(8):
            logits, hidden = policy(obs, hidden)
            action = torch.distributions.Categorical(logits=logits).sample()
            rows.append((obs, action, (action == obs[:, :4].argmax(1)).float()))
            obs = torch.randn_like(obs)
    h, loss = start, 0.0
    for o, a, r in rows:
        logits, h = policy(o, h)
        loss = loss - (logits.log_softmax(1).gather(1, a[:, None]).squeeze(1) * (r - 0.25)).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if it % 10 == 0:
        print(it, torch.stack([r for *_, r in rows]).mean().item())
