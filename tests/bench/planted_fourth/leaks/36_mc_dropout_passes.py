import torch
from torch import nn

torch.manual_seed(37)
torch.set_num_threads(1)
WORDS = 1200


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.EmbeddingBag(3000, 64)
        self.drop = nn.Dropout(0.3)
        self.fc1 = nn.Linear(64, 128)
        self.fc2 = nn.Linear(128, WORDS)

    def forward(self, bag):
        h = self.drop(torch.relu(self.fc1(self.drop(self.emb(bag)))))
        return self.fc2(h)


def docs(n):
    bags = torch.randint(3000, (n, 12))
    return bags, bags[:, 0] % WORDS


@torch.no_grad()
def predictive(model, batches, passes=8):
    model.train()
    samples = []
    for _ in range(passes):
        for bags, _ in batches:
            samples.append(model(bags))
    stacked = torch.cat(samples).view(passes, -1, WORDS).softmax(-1)
    return stacked.mean(0).argmax(-1), stacked.var(0).mean()


model = Classifier()
opt = torch.optim.Adam(model.parameters(), 3e-3)
val = [docs(40) for _ in range(8)]
for step in range(60):
    bags, y = docs(64)
    loss = nn.functional.cross_entropy(model(bags), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 20 == 19:
        pred, var = predictive(model, val)
        truth = torch.cat([y for _, y in val])
        print(step, loss.item(), (pred == truth).float().mean().item(), var.item())
