import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


def curriculum(step):
    """8, 16, ... 64 tokens in the first 40 steps, then 64 to the end"""
    return min(64, 8 * (1 + step // 5))


class LM(nn.Module):
    def __init__(self, v=80, d=48):
        super().__init__()
        self.emb = nn.Embedding(v, d)
        self.pos = nn.Embedding(64, d)
        layer = nn.TransformerEncoderLayer(d, 4, 96, dropout=0.0, batch_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(d, v)

    def forward(self, ids):
        n = ids.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(n, device=ids.device)
        return self.head(self.body(self.emb(ids) + self.pos.weight[:n], mask=mask, is_causal=True))


model = LM().to(device)
opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
log = []
for step in range(110):
    n = curriculum(step)
    ids = torch.randint(0, 80, (8, 1), device=device) + torch.arange(n + 1, device=device)
    ids %= 80
    loss = nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
    opt.zero_grad()
    loss.backward()
    opt.step()
    log.append((step, n, loss.item()))
    if step % 20 == 0:
        print(*log[-1])
