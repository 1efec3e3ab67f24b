import torch
from torch import nn

torch.manual_seed(112)
torch.set_num_threads(1)
MASKS = {}


def causal(width):
    if width not in MASKS:
        MASKS[width] = torch.ones(width, width, dtype=torch.bool).tril()
    return MASKS[width]


class Block(nn.Module):
    def __init__(self, dim=32):
        super().__init__()
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        return x + self.out(nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=causal(x.shape[1])))


net = nn.Sequential(nn.Embedding(90, 32), Block(), nn.Linear(32, 90))
opt = torch.optim.Adam(net.parameters(), 2e-3)
for step in range(90):
    width = 24 + 4 * int(torch.randint(8, ()))
    ids = (torch.randint(90, (8, 1)) + torch.arange(width)) % 90
    loss = nn.functional.cross_entropy(net(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 30 == 0:
        print(step, loss.item(), len(MASKS))
