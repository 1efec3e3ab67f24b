"""DPO-like preference training of a tiny causal LM, reference log-probs computed once per batch and kept."""
import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"
V, L, B = 160, 16, 6


class TinyLM(nn.Module):
    def __init__(self, d=48):
        super().__init__()
        self.emb = nn.Embedding(V, d)
        self.rnn = nn.GRU(d, d, batch_first=True)
        self.head = nn.Linear(d, V)

    def forward(self, ids):
        return self.head(self.rnn(self.emb(ids))[0])


def seq_logp(model, ids):
    logp = F.log_softmax(model(ids[:, :-1]), dim=-1)
    return logp.gather(2, ids[:, 1:, None]).squeeze(2).sum(1)


policy, reference = TinyLM().to(device), TinyLM().to(device)
reference.load_state_dict(policy.state_dict())
reference.eval()
opt = torch.optim.RMSprop(policy.parameters(), lr=5e-4)

pairs = [(torch.randint(0, V, (B, L), device=device), torch.randint(0, V, (B, L), device=device)) for _ in range(90)]
ref_cache = {}
beta = 0.1
for i, (chosen, rejected) in enumerate(pairs):
    if i not in ref_cache:
        ref_cache[i] = (seq_logp(reference, chosen), seq_logp(reference, rejected))  # LEAK
    ref_c, ref_r = ref_cache[i]
    pi_c, pi_r = seq_logp(policy, chosen), seq_logp(policy, rejected)
    margin = beta * ((pi_c - ref_c.detach()) - (pi_r - ref_r.detach()))
    loss = -F.logsigmoid(margin).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if i % 30 == 0:
        print(i, f"loss {loss.item():.4f} margin {margin.mean().item():+.4f}")
