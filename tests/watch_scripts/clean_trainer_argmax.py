"""As hf_eval, but logits are reduced first."""

import random

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

random.seed(0)
V = 500
model = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=V,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
)


class Rows(torch.utils.data.Dataset):
    def __init__(self, n):
        self.rows = [torch.randint(0, V, (random.randrange(20, 90),)) for _ in range(n)]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return {"input_ids": self.rows[i], "labels": self.rows[i].clone()}


def collate(batch):
    def pad(key, v):
        return torch.nn.utils.rnn.pad_sequence([b[key] for b in batch], batch_first=True, padding_value=v)

    return {"input_ids": pad("input_ids", 0), "labels": pad("labels", -100)}


args = TrainingArguments(
    "out",
    max_steps=8,
    per_device_train_batch_size=4,
    per_device_eval_batch_size=4,
    save_strategy="no",
    report_to=[],
    use_cpu=True,
)
trainer = Trainer(
    model,
    args,
    train_dataset=Rows(32),
    data_collator=collate,
    preprocess_logits_for_metrics=lambda logits, labels: logits[0].argmax(-1),
)
trainer.train()
print(trainer.predict(Rows(48)).predictions.shape)
