"""Two models and two optimizers in turn."""

import torch
from digest import show

torch.manual_seed(0)
generator = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 8))
critic = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.LeakyReLU(), torch.nn.Linear(16, 1))
for_generator = torch.optim.Adam(generator.parameters(), lr=1e-3)
for_critic = torch.optim.Adam(critic.parameters(), lr=1e-3)
loss_of = torch.nn.BCEWithLogitsLoss()
for step in range(200):
    real, fake = torch.randn(8, 8), generator(torch.randn(8, 4))
    for_critic.zero_grad()
    critic_loss = loss_of(critic(real), torch.ones(8, 1)) + loss_of(critic(fake.detach()), torch.zeros(8, 1))
    critic_loss.backward()
    for_critic.step()
    for_generator.zero_grad()
    loss = loss_of(critic(fake), torch.ones(8, 1))
    loss.backward()
    for_generator.step()
    if step % 50 == 49:
        print(step, critic_loss.item(), loss.item())
show(generator, critic)
