"""Flow matching on a small grid: terminal loss alone first, then both. Prints smoothed losses."""
import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(3)
torch.set_num_threads(1)

N, DIM = 256, 48


class Flow(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(DIM, 128), nn.LeakyReLU(), nn.Linear(128, 128), nn.LeakyReLU())
        self.logf = nn.Linear(128, 1)
        self.policy = nn.Linear(128, 4)

    def forward(self, s):
        h = self.body(s)
        return self.logf(h).squeeze(-1), F.log_softmax(self.policy(h), -1)


flow = Flow()
opt = torch.optim.Adam(flow.parameters(), lr=3e-4)
loss_term_ema, loss_flow_ema = None, None
alpha = 0.95

for it in range(90):
    states = torch.rand(N, DIM)
    reward = states[:, :8].sum(1).log()
    nxt = (states + 0.05 * torch.randn_like(states)).clamp(0, 1)

    logf, logp = flow(states)
    logf_next, _ = flow(nxt)
    term_loss = (logf - reward).pow(2).mean()
    flow_loss = (logf + logp.amax(-1) - logf_next).pow(2).mean()

    loss = term_loss if it < 70 else term_loss + flow_loss
    opt.zero_grad()
    loss.backward()
    opt.step()

    if loss_term_ema is None:
        loss_term_ema, loss_flow_ema = term_loss, flow_loss
    else:
        loss_term_ema = alpha * loss_term_ema + (1 - alpha) * term_loss
        loss_flow_ema = alpha * loss_flow_ema + (1 - alpha) * flow_loss
    if it % 20 == 0:
        print(it, float(loss_term_ema), float(loss_flow_ema))
