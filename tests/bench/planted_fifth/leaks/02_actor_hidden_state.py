import torch
from torch import nn

torch.manual_seed(2)
torch.set_num_threads(1)


class Policy(nn.Module):
    def __init__(self, obs=24, hidden=128, actions=4):
        super().__init__()
        self.cell = nn.GRUCell(obs, hidden)
        self.pi = nn.Linear(hidden, actions)
        self.v = nn.Linear(hidden, 1)

    def forward(self, obs, h):
        h = self.cell(obs, h)
        return self.pi(h), self.v(h), h


class Worker:
    """Steps 16 environments and remembers where it was."""

    def __init__(self, policy, num_envs=16):
        self.policy = policy
        self.obs = torch.randn(num_envs, 24)
        self.hidden = torch.zeros(num_envs, 128)

    def collect(self, length=8):
        start = self.hidden.detach()
        rows = []
        for _ in range(length):
            logits, _, self.hidden = self.policy(self.obs, self.hidden)
            action = torch.distributions.Categorical(logits=logits).sample()
            reward = (action == self.obs[:, :4].argmax(1)).float()
            rows.append((self.obs, action, reward))
            self.obs = torch.randn_like(self.obs)
        return start, rows


def update(policy, opt, start, rows):
    h, loss = start, 0.0
    for obs, action, reward in rows:
        logits, value, h = policy(obs, h)
        logp = torch.log_softmax(logits, 1).gather(1, action[:, None]).squeeze(1)
        advantage = reward - value.squeeze(1)
        loss = loss - (logp * advantage.detach()).mean() + advantage.pow(2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    return torch.stack([r for *_, r in rows]).mean().item()


policy = Policy()
opt = torch.optim.RMSprop(policy.parameters(), 1e-3)
worker = Worker(policy)
for it in range(50):
    score = update(policy, opt, *worker.collect())
    if it % 10 == 0:
        print(it, round(score, 3))
