"""Sequence classification with a BERT: Trainer, fp16, padded batches, best model kept."""

import argparse

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, BertConfig, Trainer, TrainingArguments

SIZES = {
    "tiny": {"vocab_size": 400, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
             "intermediate_size": 128, "max_position_embeddings": 128},
    "full": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
}  # fmt: skip
parser = argparse.ArgumentParser()
parser.add_argument("--size", choices=SIZES, default="tiny")
args = parser.parse_args()

torch.manual_seed(0)
rng = np.random.default_rng(0)
config = BertConfig(**SIZES[args.size], num_labels=3)
model = AutoModelForSequenceClassification.from_config(config)
longest = 64 if args.size == "tiny" else 384


def row():
    return {"input_ids": rng.integers(5, 400, rng.integers(8, longest)).tolist(), "labels": int(rng.integers(3))}


def collate(rows):
    length = max(len(r["input_ids"]) for r in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    for i, r in enumerate(rows):
        ids[i, : len(r["input_ids"])] = torch.tensor(r["input_ids"])
    return {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": torch.tensor([r["labels"] for r in rows])}


def compute_metrics(prediction):
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


trainer = Trainer(
    model=model,
    args=TrainingArguments(
        output_dir="bert-out", per_device_train_batch_size=8, per_device_eval_batch_size=8, num_train_epochs=2,
        fp16=True, eval_strategy="epoch", save_strategy="epoch", load_best_model_at_end=True,
        metric_for_best_model="accuracy", logging_steps=2, report_to="none",
    ),
    train_dataset=Dataset.from_list([row() for _ in range(32)]),
    eval_dataset=Dataset.from_list([row() for _ in range(16)]),
    data_collator=collate,
    compute_metrics=compute_metrics,
)  # fmt: skip
trainer.train()
