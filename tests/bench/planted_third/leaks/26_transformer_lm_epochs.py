import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(26)
torch.set_num_threads(1)
V, T = 2000, 48

emb = nn.Embedding(V, 64)
enc = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True)
proj = nn.Linear(64, V)
params = [*emb.parameters(), *enc.parameters(), *proj.parameters()]
opt = torch.optim.SGD(params, lr=0.05)
causal = torch.triu(torch.full((T, T), float("-inf")), 1)
valid = torch.randint(0, V, (40, T + 1))


def lm(ids):
    h = enc(emb(ids), src_mask=causal, is_causal=True)
    return h, proj(h)


for epoch in range(3):
    running = 0.0
    for step in range(8):
        batch = torch.randint(0, V, (20, T + 1))
        _, logits = lm(batch[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        opt.zero_grad()
        loss.backward()
        opt.step()
        running += loss.item()
        del logits, loss

    with torch.no_grad():
        val_hidden, val_logits = lm(valid[:, :-1])
        tokens = val_logits.argmax(-1)
        acc = (tokens == valid[:, 1:]).float().mean()
    print(f"epoch {epoch}: train {running / 8:.3f}  val acc {acc:.4f}")
print("done")
