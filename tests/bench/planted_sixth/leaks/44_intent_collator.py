from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader
from transformers import BertConfig, BertForSequenceClassification

torch.set_num_threads(1)
torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"

MAX_LENGTH = 256


@dataclass
class Collator:
    pad_token_id: int = 0
    max_length: int = MAX_LENGTH

    def __call__(self, rows):
        ids = torch.full((len(rows), self.max_length), self.pad_token_id)
        mask = torch.zeros(len(rows), self.max_length, dtype=torch.long)
        for i, row in enumerate(rows):
            tokens = row["input_ids"][: self.max_length]
            ids[i, : len(tokens)] = tokens
            mask[i, : len(tokens)] = 1
        labels = torch.tensor([row["label"] for row in rows])
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def utterances(count):
    for _ in range(count):
        length = int(torch.randint(6, 40, ()))
        ids = torch.randint(1, 500, (length,))
        yield {"input_ids": ids, "label": int(ids[0]) % 8}


config = BertConfig(
    vocab_size=500,
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=128,
    max_position_embeddings=MAX_LENGTH,
    num_labels=8,
)
model = BertForSequenceClassification(config).to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
loader = DataLoader(list(utterances(200)), batch_size=8, shuffle=True, collate_fn=Collator())

for batch in loader:
    batch = {k: v.to(device) for k, v in batch.items()}
    loss = model(**batch).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
print(f"loss {loss.item():.3f}")
