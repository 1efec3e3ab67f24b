import torch
from torch import nn

torch.manual_seed(106)
torch.set_num_threads(1)
LENGTHS = [32, 48, 64, 96, 128, 160]


class RelativeBias(nn.Module):
    def __init__(self, heads=4, reach=16):
        super().__init__()
        self.table = nn.Embedding(2 * reach + 1, heads)
        self.reach = reach
        self.index = {}

    def forward(self, n):
        if n not in self.index:
            offset = torch.arange(n)[None] - torch.arange(n)[:, None]
            self.index[n] = offset.clamp(-self.reach, self.reach) + self.reach
        return self.table(self.index[n]).permute(2, 0, 1)


class Layer(nn.Module):
    def __init__(self, d=32, heads=4):
        super().__init__()
        self.heads = heads
        self.qkv, self.out, self.bias = nn.Linear(d, 3 * d), nn.Linear(d, d), RelativeBias(heads)

    def forward(self, x):
        b, n, d = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=self.bias(n))
        return x + self.out(y.transpose(1, 2).reshape(b, n, d))


model = nn.Sequential(nn.Linear(6, 32), Layer(), Layer(), nn.Linear(32, 6))
opt = torch.optim.AdamW(model.parameters(), 1e-3)
for step in range(60):
    n = LENGTHS[int(torch.randint(len(LENGTHS), ()))]
    x = torch.randn(4, n, 6).cumsum(1) * 0.1
    loss = nn.functional.mse_loss(model(x[:, :-1]), x[:, 1:])
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 20 == 0:
        print(step, n, loss.item())
