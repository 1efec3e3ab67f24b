import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"


def build():
    return nn.Sequential(nn.EmbeddingBag(2000, 96), nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, 5)).to(device)


def run_trial(lr, ids, labels, steps=10):
    model = build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    for _ in range(steps):
        pick = torch.randint(len(ids), (32,), device=device)
        loss = nn.functional.cross_entropy(model(ids[pick]), labels[pick])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        score = (model(ids).argmax(-1) == labels).float().mean().item()
    return score, {k: v.detach().clone() for k, v in model.state_dict().items()}


ids = torch.randint(2000, (256, 16), device=device)
labels = ids[:, 0] % 5
scores = {}
best_score, best_state, best_lr = -1.0, None, None
for lr in (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2):
    score, state = run_trial(lr, ids, labels)
    scores[lr] = score
    if score > best_score:
        best_score, best_state, best_lr = score, state, lr
    del state

final = build()
final.load_state_dict(best_state)
print(best_lr, round(best_score, 3), scores)
