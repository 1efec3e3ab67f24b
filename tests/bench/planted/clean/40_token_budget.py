import random
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence


def token_batches(lengths, max_tokens, rng):
    batches, cur, width = [], [], 0
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if cur and max(width, lengths[i]) * (len(cur) + 1) > max_tokens:
            batches.append(cur)
            cur, width = [], 0
        cur.append(i)
        width = max(width, lengths[i])
    batches.append(cur)
    rng.shuffle(batches)
    return batches


rng = random.Random(39)
torch.set_num_threads(1)
torch.manual_seed(39)
rows = [torch.randint(1, 70, (rng.randint(4, 120),)) for _ in range(260)]
emb, gru, out = nn.Embedding(70, 40, padding_idx=0), nn.GRU(40, 64, batch_first=True), nn.Linear(64, 70)
params = [p for m in (emb, gru, out) for p in m.parameters()]
opt = torch.optim.AdamW(params, lr=2e-3)
for n, idx in enumerate(token_batches([len(r) for r in rows], 400, rng)):
    x = pad_sequence([rows[i] for i in idx], batch_first=True)
    y = out(gru(emb(x))[0])
    loss = nn.functional.cross_entropy(y[:, :-1].flatten(0, 1), x[:, 1:].flatten(), ignore_index=0)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if n % 10 == 0:
        print(n, tuple(x.shape), loss.item())
