"""Supervised fine-tuning with TRL: packed chats of several lengths, all weights in bfloat16."""

import argparse
import random

import torch
from datasets import Dataset
from small_tokenizer import WORDS, make_tokenizer
from transformers import AutoModelForCausalLM, Qwen3Config
from trl import SFTConfig, SFTTrainer

SIZES = {
    "tiny": {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16},
    "full": {"vocab_size": 151936, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
             "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": True},
}  # fmt: skip
parser = argparse.ArgumentParser()
parser.add_argument("--size", choices=SIZES, default="tiny")
parser.add_argument("--packing", action="store_true")
args = parser.parse_args()
rng = random.Random(0)
torch.manual_seed(0)


def said(low, high):
    return " ".join(rng.choices(WORDS, k=rng.randint(low, high)))


def chat():
    return [{"role": "user", "content": said(4, 20)}, {"role": "assistant", "content": said(10, 60)}]


model = AutoModelForCausalLM.from_config(Qwen3Config(**SIZES[args.size]), dtype=torch.bfloat16)
trainer = SFTTrainer(
    model=model,
    processing_class=make_tokenizer(),
    train_dataset=Dataset.from_list([{"messages": chat()} for _ in range(24)]),
    eval_dataset=Dataset.from_list([{"messages": chat()} for _ in range(8)]),
    args=SFTConfig(
        output_dir="sft-out", per_device_train_batch_size=2, gradient_accumulation_steps=2, max_steps=6,
        max_length=64, packing=args.packing, bf16=True, eval_strategy="steps", eval_steps=3, logging_steps=1,
        save_strategy="no", report_to="none",
    ),
)  # fmt: skip
trainer.train()
