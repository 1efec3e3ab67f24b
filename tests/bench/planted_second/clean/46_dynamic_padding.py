import random

import torch
from transformers import BertConfig, BertForSequenceClassification

random.seed(4)
torch.manual_seed(4)
torch.set_num_threads(1)

model = BertForSequenceClassification(
    BertConfig(vocab_size=90, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96,
               max_position_embeddings=64, num_labels=3)
)
opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
MAX = 64
rows = [[random.randrange(1, 90) for _ in range(random.randint(6, 120))][:MAX] for _ in range(400)]
rows[3] = [random.randrange(1, 90) for _ in range(MAX)]
ema = None
for step in range(100):
    batch = rows[step * 4 : step * 4 + 4]
    n = max(map(len, batch))
    ids = torch.tensor([r + [0] * (n - len(r)) for r in batch])
    loss = model(input_ids=ids, attention_mask=(ids > 0).long(), labels=ids[:, 0] % 3).loss
    opt.zero_grad()
    loss.backward()
    opt.step()
    ema = loss.item() if ema is None else 0.9 * ema + 0.1 * loss.item()
    if step % 25 == 0:
        print(step, n, ema)
