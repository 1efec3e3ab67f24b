import torch
from torch import nn
from torch.distributions import Normal

torch.manual_seed(3)
torch.set_num_threads(1)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Memory:
    def __init__(self):
        self.states, self.actions, self.logprobs, self.rewards = [], [], [], []

    def clear_memory(self):
        for buf in (self.states, self.actions, self.logprobs, self.rewards):
            buf.clear()


class ActorCritic(nn.Module):
    def __init__(self, channels=4, action_dim=3):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 8, 5, stride=3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 10 * 10, 64), nn.Tanh()
        )
        self.mu = nn.Linear(64, action_dim)
        self.value = nn.Linear(64, 1)
        self.log_std = nn.Parameter(torch.zeros(action_dim))

    def dist(self, x):
        feats = self.body(x)
        return Normal(self.mu(feats), self.log_std.exp()), self.value(feats).squeeze(-1)


class PPO:
    def __init__(self, horizon, epochs=2, clip=0.2):
        self.policy = ActorCritic().to(device)
        self.optimizer = torch.optim.Adam(self.policy.parameters(), lr=3e-4)
        self.horizon, self.epochs, self.clip = horizon, epochs, clip

    @torch.no_grad()
    def select_action(self, state, memory):
        dist, _ = self.policy.dist(state)
        action = dist.sample()
        memory.states.append(state)
        memory.actions.append(action)
        memory.logprobs.append(dist.log_prob(action).sum(-1))
        return action

    def update(self, memory):
        states = torch.cat(memory.states[-self.horizon :])
        actions = torch.cat(memory.actions[-self.horizon :])
        old = torch.cat(memory.logprobs[-self.horizon :])
        returns, running = [], torch.zeros_like(memory.rewards[-1])
        for r in reversed(memory.rewards[-self.horizon :]):
            running = r + 0.99 * running
            returns.insert(0, running)
        returns = torch.cat(returns)
        for _ in range(self.epochs):
            dist, value = self.policy.dist(states)
            ratio = (dist.log_prob(actions).sum(-1) - old).exp()
            adv = returns - value.detach()
            surr = torch.min(ratio * adv, ratio.clamp(1 - self.clip, 1 + self.clip) * adv)
            loss = -surr.mean() + 0.5 * (returns - value).pow(2).mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return loss.item()


memory = Memory()
agent = PPO(horizon=8)
frames = torch.rand(4, 4, 32, 32, device=device)
for t in range(1, 241):
    action = agent.select_action(frames, memory)
    frames = torch.rand(4, 4, 32, 32, device=device)
    memory.rewards.append(-action.pow(2).mean(-1) + frames.mean(dim=(1, 2, 3)))
    if t % agent.horizon == 0:
        loss = agent.update(memory)
        if t % 80 == 0:
            print(f"timestep {t} loss {loss:.3f}")
