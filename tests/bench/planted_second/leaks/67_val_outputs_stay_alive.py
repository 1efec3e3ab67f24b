import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(0)
torch.set_num_threads(1)

VOCAB = 3000
emb = nn.Embedding(VOCAB, 48)
body = nn.GRU(48, 96, batch_first=True)
head = nn.Linear(96, VOCAB)
modules = nn.ModuleList([emb, body, head])
opt = torch.optim.SGD(modules.parameters(), lr=0.2)


def forward(ids):
    return head(body(emb(ids))[0])


val_ids = torch.randint(0, VOCAB, (48, 41))
for epoch in range(3):
    modules.train()
    for step in range(10):
        ids = torch.randint(0, VOCAB, (16, 41))
        loss = F.cross_entropy(forward(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        opt.zero_grad()
        loss.backward()
        opt.step()

    modules.eval()
    with torch.no_grad():
        val_logits = forward(val_ids[:, :-1])  # LEAK
        hits = sum((l.argmax(-1) == t).sum().item() for l, t in zip(val_logits, val_ids[:, 1:]))
    print(f"epoch {epoch} loss {loss.item():.3f} val acc {hits / val_ids[:, 1:].numel():.4f}")
