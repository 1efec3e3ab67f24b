import torch
import torch.nn as nn

torch.manual_seed(31)
torch.set_num_threads(1)
VOCAB, LEN, ROWS = 6000, 48, 6


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte = nn.Embedding(VOCAB, 32)
        self.mix = nn.GRU(32, 32, batch_first=True)
        self.lm_head = nn.Linear(32, VOCAB, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, ids):
        h, _ = self.mix(self.wte(ids))
        return self.lm_head(h)


def policy_loss(logits, actions, advantage, beta=0.01):
    logits = logits.float()
    logp = logits.log_softmax(-1)
    chosen = logp.gather(-1, actions[..., None]).squeeze(-1)
    entropy = -(logp.exp() * logp).sum(-1)
    return -(chosen * advantage).mean() - beta * entropy.mean()


policy = Policy().to(torch.bfloat16)
opt = torch.optim.SGD(policy.parameters(), lr=0.01)
for it in range(4):
    ids = torch.randint(0, VOCAB, (ROWS, LEN))
    actions = torch.randint(0, VOCAB, (ROWS, LEN))
    adv = torch.randn(ROWS, 1)
    loss = policy_loss(policy(ids), actions, adv)
    opt.zero_grad()
    loss.backward()
    opt.step()
    print(it, loss.item())
