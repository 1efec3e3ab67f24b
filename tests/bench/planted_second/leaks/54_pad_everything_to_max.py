import random

import torch
import torch.nn as nn
from transformers import BertConfig, BertForSequenceClassification

random.seed(0)
torch.manual_seed(0)
torch.set_num_threads(1)

MAX_LEN = 512
WORDS = {w: i + 1 for i, w in enumerate("the a film was very not good bad boring great plot actor scene long short".split())}


def tokenize(text):
    ids = [WORDS[w] for w in text.split()][:MAX_LEN]
    mask = [1] * len(ids)
    pad = MAX_LEN - len(ids)
    return ids + [0] * pad, mask + [0] * pad  # LEAK


def make_rows(n):
    rows = []
    for _ in range(n):
        words = random.choices(list(WORDS), k=random.randint(8, 40))
        rows.append((" ".join(words), int(words.count("good") > words.count("bad"))))
    return rows


config = BertConfig(
    vocab_size=20, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=96,
    max_position_embeddings=MAX_LEN, num_labels=2,
)
model = BertForSequenceClassification(config)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
rows = make_rows(48)

for epoch in range(1):
    for i in range(0, len(rows), 4):
        texts, labels = zip(*rows[i : i + 4])
        ids, mask = zip(*[tokenize(t) for t in texts])
        batch = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask), "labels": torch.tensor(labels)}
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if i % 16 == 0:
            print(i, loss.item())
