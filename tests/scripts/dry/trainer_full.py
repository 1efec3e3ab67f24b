"""Full fine-tune by transformers' Trainer, evaluated with metrics that keep all logits."""

import argparse
import os
import tempfile

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, GPT2Config, Trainer, TrainingArguments, set_seed

parser = argparse.ArgumentParser()
parser.add_argument("--size", choices=["tiny", "full"], default="tiny")
parser.add_argument("--eval_accumulation_steps", type=int, default=None)
args = parser.parse_args()
is_tiny = args.size == "tiny"
set_seed(0)

config = GPT2Config(vocab_size=512, n_positions=64, n_embd=64, n_layer=2, n_head=4) if is_tiny else GPT2Config()
model = AutoModelForCausalLM.from_config(config)
length = 32 if is_tiny else 512
rng = np.random.default_rng(0)


def rows(count):
    ids = rng.integers(0, config.vocab_size, (count, length)).tolist()
    return Dataset.from_dict({"input_ids": ids, "labels": ids})


def compute_metrics(prediction):
    logits, labels = prediction.predictions, prediction.label_ids
    guesses = np.argmax(logits[:, :-1], axis=-1)
    return {"accuracy": float((guesses == labels[:, 1:]).mean())}


trainer = Trainer(
    model=model,
    args=TrainingArguments(
        output_dir=os.path.join(tempfile.gettempdir(), "trainer_full"),
        per_device_train_batch_size=4,
        per_device_eval_batch_size=8,
        max_steps=6,
        bf16=torch.cuda.is_available(),
        eval_strategy="steps",
        eval_steps=3,
        eval_accumulation_steps=args.eval_accumulation_steps,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
    ),
    train_dataset=rows(24),
    eval_dataset=rows(32),
    compute_metrics=compute_metrics,
)
trainer.train()
print(trainer.evaluate())
