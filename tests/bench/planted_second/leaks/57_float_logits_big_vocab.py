import torch
import torch.nn as nn

torch.manual_seed(0)
torch.set_num_threads(1)
VOCAB, D = 16000, 48


class BF16LM(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, D)
        self.mix = nn.Sequential(nn.Linear(D, 4 * D), nn.GELU(), nn.Linear(4 * D, D))
        self.norm = nn.LayerNorm(D)
        self.lm_head = nn.Linear(D, VOCAB, bias=False)

    def forward(self, ids):
        x = self.embed(ids)
        return self.lm_head(self.norm(x + self.mix(x)))


def causal_lm_loss(logits, labels):
    logits = logits.float()  # LEAK   upcast to float32 for the loss
    logp = torch.log_softmax(logits[:, :-1], dim=-1)
    nll = -logp.gather(-1, labels[:, 1:, None]).squeeze(-1)
    return nll.mean()


model = BF16LM().to(torch.bfloat16)
opt = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(12):
    ids = torch.randint(0, VOCAB, (4, 64))
    loss = causal_lm_loss(model(ids), ids)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 4 == 0:
        print(step, loss.item())
