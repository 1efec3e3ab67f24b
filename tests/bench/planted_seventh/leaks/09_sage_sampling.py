"""GraphSAGE with neighbour sampling on a random graph."""

import gc

import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class Block:
    """One hop of a sampled batch."""

    def __init__(self, batch, nodes, neighbours):
        self.batch = batch
        self.nodes = nodes
        self.neighbours = neighbours

    def gather(self):
        return self.batch.features[self.nodes], self.batch.features[self.neighbours]


class SampledBatch:
    def __init__(self, graph, seeds, fanout):
        picks = torch.randint(graph.adj.shape[1], (len(seeds), fanout))
        self.features = graph.x.clone()
        self.labels = graph.y[seeds]
        self.blocks = [Block(self, seeds, graph.adj[seeds[:, None], picks])]


class Graph:
    def __init__(self, n=1500, dim=48, degree=12, classes=5):
        self.x = torch.randn(n, dim, device=device)
        self.y = torch.randint(classes, (n,), device=device)
        self.x[torch.arange(n), self.y] += 2.0
        self.adj = torch.randint(n, (n, degree), device=device)

    def loader(self, size, fanout):
        for seeds in torch.randperm(len(self.x), device=device).split(size):
            yield SampledBatch(self, seeds, fanout)


class Sage(nn.Module):
    def __init__(self, dim, hidden, classes):
        super().__init__()
        self.own = nn.Linear(dim, hidden)
        self.nbr = nn.Linear(dim, hidden)
        self.out = nn.Linear(hidden, classes)

    def forward(self, batch):
        own, nbr = batch.blocks[0].gather()
        return self.out(F.relu(self.own(own) + self.nbr(nbr.mean(1))))


def main():
    torch.manual_seed(0)
    gc.collect()
    gc.disable()
    graph = Graph()
    model = Sage(48, 64, 5).to(device)
    opt = torch.optim.Adam(model.parameters(), lr=5e-3)
    for epoch in range(4):
        correct = 0
        for batch in graph.loader(125, fanout=6):
            logits = model(batch)
            loss = F.cross_entropy(logits, batch.labels)
            opt.zero_grad()
            loss.backward()
            opt.step()
            correct += (logits.argmax(1) == batch.labels).sum().item()
        print(f"epoch {epoch} accuracy {correct / 1500:.3f}")


if __name__ == "__main__":
    main()
