import torch
from torch import nn
from torch.distributions import Categorical

torch.manual_seed(0)
torch.set_num_threads(1)


class ActorCritic(nn.Module):
    def __init__(self):
        super().__init__()
        self.affine = nn.Linear(6, 128)
        self.action_head = nn.Linear(128, 3)
        self.value_head = nn.Linear(128, 1)
        self.saved_actions = []
        self.rewards = []

    def forward(self, x):
        h = torch.relu(self.affine(x))
        return self.action_head(h), self.value_head(h).squeeze(-1)


class Drift:
    def reset(self):
        self.s = torch.randn(32, 6)
        return self.s

    def step(self, a):
        push = torch.zeros_like(self.s).scatter_(1, a[:, None], 0.5)
        self.s = 0.9 * self.s + push + 0.05 * torch.randn_like(self.s)
        return self.s, -self.s[:, 0].abs()


def finish_episode(model, opt, gamma=0.99):
    R, returns = 0, []
    for r in model.rewards[::-1]:
        R = r + gamma * R
        returns.insert(0, R)
    policy_losses, value_losses = [], []
    for (log_prob, value, entropy), R in zip(model.saved_actions, returns):
        advantage = R - value.detach()
        policy_losses.append(-log_prob * advantage - 0.01 * entropy)
        value_losses.append(nn.functional.smooth_l1_loss(value, R))
    opt.zero_grad()
    loss = torch.stack(policy_losses).mean() + torch.stack(value_losses).mean()
    loss.backward()
    opt.step()
    del model.rewards[:]
    del model.saved_actions[:]


model, env = ActorCritic(), Drift()
opt = torch.optim.Adam(model.parameters(), lr=3e-3)
for episode in range(50):
    state = env.reset()
    ep = 0.0
    for t in range(10):
        logits, value = model(state)
        m = Categorical(logits=logits)
        a = m.sample()
        model.saved_actions.append((m.log_prob(a), value, m.entropy()))
        state, reward = env.step(a)
        model.rewards.append(reward)
        ep += reward.mean().item()
    finish_episode(model, opt)
    if episode % 10 == 0:
        print(episode, ep)
