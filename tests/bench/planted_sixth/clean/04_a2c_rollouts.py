import torch
from torch import nn
from torch.distributions import Categorical

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class Rollouts:
    def __init__(self):
        self.clear()

    def clear(self):
        self.log_probs, self.values, self.rewards, self.entropies = [], [], [], []

    def add(self, log_prob, value, reward, entropy):
        self.log_probs.append(log_prob)
        self.values.append(value)
        self.rewards.append(reward)
        self.entropies.append(entropy)

    def returns(self, bootstrap, gamma=0.99):
        out, running = [], bootstrap
        for reward in reversed(self.rewards):
            running = reward + gamma * running
            out.insert(0, running)
        return torch.stack(out)


class RecurrentActorCritic(nn.Module):
    def __init__(self, obs_dim=48, hidden=128, actions=5):
        super().__init__()
        self.rnn = nn.GRUCell(obs_dim, hidden)
        self.pi = nn.Linear(hidden, actions)
        self.v = nn.Linear(hidden, 1)

    def forward(self, obs, h):
        h = self.rnn(obs, h)
        return Categorical(logits=self.pi(h)), self.v(h).squeeze(-1), h


def main(updates=50, horizon=8, envs=32):
    net = RecurrentActorCritic().to(device)
    optimizer = torch.optim.RMSprop(net.parameters(), lr=7e-4)
    rollouts = Rollouts()
    obs, h = torch.randn(envs, 48, device=device), torch.zeros(envs, 128, device=device)
    for update in range(updates):
        for _ in range(horizon):
            dist, value, h = net(obs, h)
            action = dist.sample()
            obs, reward = torch.randn(envs, 48, device=device), (action == 2).float()
            rollouts.add(dist.log_prob(action), value, reward, dist.entropy())
        with torch.no_grad():
            bootstrap = net(obs, h)[1]
        advantage = rollouts.returns(bootstrap) - torch.stack(rollouts.values)
        policy_loss = -(torch.stack(rollouts.log_probs) * advantage.detach()).mean()
        loss = policy_loss + 0.5 * advantage.pow(2).mean() - 0.01 * torch.stack(rollouts.entropies).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rollouts.clear()
        h = h.detach()
        if update % 10 == 0:
            print(f"update {update} loss {loss.item():.4f}")


if __name__ == "__main__":
    main()
