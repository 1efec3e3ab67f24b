from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader
from transformers import BertConfig, BertForSequenceClassification

torch.set_num_threads(1)
torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"


@dataclass
class PadToLongest:
    max_length: int = 96

    def __call__(self, rows):
        rows = [(ids[: self.max_length], label) for ids, label in rows]
        width = max(len(ids) for ids, _ in rows)
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, (tokens, _) in enumerate(rows):
            ids[i, : len(tokens)] = tokens
            mask[i, : len(tokens)] = 1
        return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([label for _, label in rows])}


def reviews(count):
    for i in range(count):
        length = 140 if i == count - 9 else int(torch.randint(8, 40, ()))
        tokens = torch.randint(1, 500, (length,))
        yield tokens, int(tokens[0]) % 4


config = BertConfig(
    vocab_size=500,
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=128,
    max_position_embeddings=128,
    num_labels=4,
)
model = BertForSequenceClassification(config).to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
for batch in DataLoader(list(reviews(240)), batch_size=8, collate_fn=PadToLongest()):
    loss = model(**{k: v.to(device) for k, v in batch.items()}).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
print(round(loss.item(), 3))
