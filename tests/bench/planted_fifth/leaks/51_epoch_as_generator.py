import torch
from torch import nn

torch.manual_seed(51)
torch.set_num_threads(1)


class Embedder(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128))

    def forward(self, x):
        return nn.functional.normalize(self.f(x), dim=1)


def triplets(n=96):
    anchor = torch.randn(n, 64)
    return anchor, anchor + 0.3 * torch.randn(n, 64), torch.randn(n, 64)


def epoch_steps(model, opt, steps):
    for _ in range(steps):
        a, p, n = (model(x) for x in triplets())
        loss = nn.functional.triplet_margin_loss(a, p, n, margin=1.5)
        opt.zero_grad()
        loss.backward()
        opt.step()
        yield loss.item(), torch.stack([a, p, n]).detach()


def spread(embeddings):
    flat = embeddings.flatten(0, 1)
    return (flat - flat.mean(0)).norm(dim=1).mean().item()


model = Embedder()
opt = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
for epoch in range(4):
    results = list(epoch_steps(model, opt, 25))
    losses = [loss for loss, _ in results]
    spreads = [spread(embeddings) for _, embeddings in results]
    print(epoch, sum(losses) / len(losses), sum(spreads) / len(spreads))
    del results
