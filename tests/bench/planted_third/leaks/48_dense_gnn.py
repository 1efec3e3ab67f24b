import torch
import torch.nn.functional as F
from torch import nn


class DenseGNN(nn.Module):
    def __init__(self, d=16, layers=2):
        super().__init__()
        self.inp = nn.Linear(8, d)
        self.edge = nn.ModuleList([nn.Linear(2 * d, d) for _ in range(layers)])
        self.read = nn.Linear(d, 1)

    def forward(self, x, adj):
        h = self.inp(x)
        for lin in self.edge:
            n = h.shape[0]
            pair = torch.cat([h[:, None].expand(n, n, -1), h[None].expand(n, n, -1)], -1)
            msg = F.relu(lin(pair)) * adj[..., None]
            h = h + msg.mean(1)
        return self.read(h.mean(0))


def molecules(n_graphs, g):
    sizes = torch.randint(24, 48, (n_graphs,), generator=g).tolist()
    sizes[-4] = 260
    for n in sizes:
        x = torch.randn(n, 8, generator=g)
        adj = (torch.rand(n, n, generator=g) < 0.1).float()
        yield x, adj, x[:, 0].mean().view(1)


if __name__ == "__main__":
    torch.manual_seed(48)
    torch.set_num_threads(1)
    net = DenseGNN()
    opt = torch.optim.Adam(net.parameters(), 1e-3)
    g = torch.Generator().manual_seed(0)
    for i, (x, adj, y) in enumerate(molecules(100, g)):
        loss = F.mse_loss(net(x, adj), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        if i % 25 == 0:
            print(i, len(x), loss.item())
