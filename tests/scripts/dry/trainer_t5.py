"""Summarisation by a T5 with Seq2SeqTrainer, evaluated by what it generates."""

import argparse

import numpy as np
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForSeq2SeqLM,
    DataCollatorForSeq2Seq,
    PreTrainedTokenizerFast,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5Config,
)

SIZES = {
    "tiny": {"vocab_size": 300, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4},
    "full": {"vocab_size": 32128, "d_model": 1024, "d_kv": 64, "d_ff": 4096, "num_layers": 24, "num_heads": 16},
}
parser = argparse.ArgumentParser()
parser.add_argument("--size", choices=SIZES, default="tiny")
args = parser.parse_args()

words = {"<pad>": 0, "</s>": 1, "<unk>": 2, **{f"w{i}": i + 3 for i in range(280)}}
backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
backend.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
torch.manual_seed(0)
rng = np.random.default_rng(0)
model = AutoModelForSeq2SeqLM.from_config(T5Config(**SIZES[args.size], decoder_start_token_id=0))


def text(low, high):
    return " ".join(f"w{i}" for i in rng.integers(0, 280, rng.integers(low, high)))


def tokenize(row):
    found = tokenizer(row["text"], max_length=512, truncation=True)
    found["labels"] = tokenizer(text_target=row["summary"], max_length=64, truncation=True)["input_ids"]
    return found


def compute_metrics(prediction):
    predictions = np.where(prediction.predictions != -100, prediction.predictions, tokenizer.pad_token_id)
    labels = np.where(prediction.label_ids != -100, prediction.label_ids, tokenizer.pad_token_id)
    decoded = tokenizer.batch_decode(predictions, skip_special_tokens=True)
    references = tokenizer.batch_decode(labels, skip_special_tokens=True)
    return {"exact": float(np.mean([a == b for a, b in zip(decoded, references, strict=True)]))}


long = 40 if args.size == "tiny" else 500
data = Dataset.from_list([{"text": text(10, long), "summary": text(4, 20)} for _ in range(24)])
data = data.map(tokenize, remove_columns=data.column_names).train_test_split(test_size=8, seed=0)
trainer = Seq2SeqTrainer(
    model=model,
    args=Seq2SeqTrainingArguments(
        output_dir="t5-out", per_device_train_batch_size=4, per_device_eval_batch_size=4, num_train_epochs=1,
        eval_strategy="epoch", predict_with_generate=True, generation_max_length=12, logging_steps=2,
        save_strategy="no", report_to="none",
    ),
    train_dataset=data["train"],
    eval_dataset=data["test"],
    data_collator=DataCollatorForSeq2Seq(tokenizer, model=model),
    processing_class=tokenizer,
    compute_metrics=compute_metrics,
)  # fmt: skip
trainer.train()
