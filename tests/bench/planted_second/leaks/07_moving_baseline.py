import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(5)

actor = nn.Sequential(nn.Linear(20, 64), nn.Tanh(), nn.Linear(64, 5))
critic = nn.Sequential(nn.Linear(20, 256), nn.Tanh(), nn.Linear(256, 256), nn.Tanh(), nn.Linear(256, 1))
opt_a = torch.optim.Adam(actor.parameters(), lr=1e-3)
opt_c = torch.optim.Adam(critic.parameters(), lr=1e-3)

baseline = torch.zeros(())
for it in range(150):
    obs = torch.randn(64, 20)
    dist = torch.distributions.Categorical(logits=actor(obs))
    act = dist.sample()
    reward = (act == obs[:, :5].argmax(1)).float()

    # slow average of what the critic expects
    baseline = 0.98 * baseline + 0.02 * critic(obs).mean()  # LEAK
    adv = reward - baseline.detach()

    opt_a.zero_grad()
    (-(dist.log_prob(act) * adv).mean()).backward()
    opt_a.step()

    if it % 2 == 0:
        critic_loss = (critic(obs).squeeze(1) - reward).pow(2).mean()
        opt_c.zero_grad()
        critic_loss.backward()
        opt_c.step()
    if it % 50 == 0:
        print(it, reward.mean().item(), baseline.item())
