import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"

# SimSiam-like pretraining; after every epoch a kNN classifier on a bank of features
data = torch.randn(512, 96, device=device)
labels = (data[:, :8].argmax(1)).to(device)

backbone = nn.Sequential(nn.Linear(96, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 256)).to(device)
predictor = nn.Sequential(nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 256)).to(device)
opt = torch.optim.SGD([*backbone.parameters(), *predictor.parameters()], lr=0.05, momentum=0.9)
feature_bank = []
feature_labels = []


def neg_cos(p, z):
    return -F.cosine_similarity(p, z.detach(), dim=1).mean()


@torch.no_grad()
def knn_eval(k=5):
    backbone.eval()
    for i in range(0, 512, 64):
        f = F.normalize(backbone(data[i : i + 64]), dim=1)
        feature_bank.append(f)  # LEAK
        feature_labels.append(labels[i : i + 64])
    bank, lab = torch.cat(feature_bank[-8:]), torch.cat(feature_labels[-8:])
    sim = bank @ bank.t()
    sim.fill_diagonal_(-1)
    vote = lab[sim.topk(k, dim=1).indices].mode(dim=1).values
    backbone.train()
    return (vote == lab).float().mean().item()


for epoch in range(14):
    for idx in torch.randperm(512, device=device).split(64):
        x = data[idx]
        z1 = backbone(x + 0.1 * torch.randn_like(x))
        z2 = backbone(x + 0.1 * torch.randn_like(x))
        loss = 0.5 * (neg_cos(predictor(z1), z2) + neg_cos(predictor(z2), z1))
        opt.zero_grad()
        loss.backward()
        opt.step()
    print(f"epoch {epoch} loss {loss.item():.3f} knn {knn_eval():.3f}")
