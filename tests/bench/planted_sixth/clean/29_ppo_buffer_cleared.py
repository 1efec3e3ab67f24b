import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"

VOCAB, STEPS, GROUP = 256, 12, 16


class Policy(nn.Module):
    def __init__(self, dim=96):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, dim)
        self.gru = nn.GRU(dim, dim, batch_first=True)
        self.actor = nn.Linear(dim, VOCAB)
        self.critic = nn.Linear(dim, 1)

    def forward(self, ids):
        h, _ = self.gru(self.embed(ids))
        return self.actor(h), self.critic(h).squeeze(-1)


class Storage:
    def __init__(self):
        self.history = []

    def push(self, item):
        self.history.append(item)

    def clear_history(self):
        self.history = []


@torch.no_grad()
def rollout(policy):
    ids = torch.randint(VOCAB, (GROUP, 1), device=device)
    for _ in range(STEPS):
        logits, _ = policy(ids)
        ids = torch.cat([ids, torch.multinomial(logits[:, -1].softmax(-1), 1)], 1)
    logits, values = policy(ids[:, :-1])
    logps = logits.log_softmax(-1)
    reward = (ids[:, 1:] % 5 == 0).float().mean(1)
    return {"ids": ids, "all_logps": logps, "advantage": reward[:, None] - values, "reward": reward}


policy = Policy().to(device)
optimizer = torch.optim.Adam(policy.parameters(), lr=1e-3)
storage = Storage()
for iteration in range(20):
    for _ in range(3):
        storage.push(rollout(policy))
    for item in storage.history:
        action = item["ids"][:, 1:, None]
        logits, values = policy(item["ids"][:, :-1])
        ratio = (logits.log_softmax(-1) - item["all_logps"]).gather(2, action).squeeze(2).exp()
        loss = -(ratio * item["advantage"]).mean() + 0.5 * (values - item["reward"][:, None]).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    storage.clear_history()
    if iteration % 5 == 0:
        print(iteration, round(loss.item(), 4))
