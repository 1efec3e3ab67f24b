"""Reinforcement learning with TRL's GRPO: it generates, a function rewards, it trains."""

import argparse
import random

import torch
from datasets import Dataset
from small_tokenizer import WORDS, make_tokenizer
from transformers import AutoModelForCausalLM, Qwen2Config
from trl import GRPOConfig, GRPOTrainer

SIZES = {
    "tiny": {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2},
    "full": {"vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
             "num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True},
}  # fmt: skip
parser = argparse.ArgumentParser()
parser.add_argument("--size", choices=SIZES, default="tiny")
args = parser.parse_args()
rng = random.Random(0)
torch.manual_seed(0)


def reward(completions, **_):
    return [float(len(set(text.split()))) for text in completions]


model = AutoModelForCausalLM.from_config(Qwen2Config(**SIZES[args.size]), dtype=torch.bfloat16)
trainer = GRPOTrainer(
    model=model,
    reward_funcs=reward,
    processing_class=make_tokenizer(),
    train_dataset=Dataset.from_list([{"prompt": " ".join(rng.choices(WORDS, k=rng.randint(3, 12)))} for _ in range(8)]),
    args=GRPOConfig(
        output_dir="grpo-out", per_device_train_batch_size=4, num_generations=4, max_completion_length=8, max_steps=4,
        bf16=True, beta=0.0, logging_steps=1, save_strategy="no", report_to="none",
    ),
)  # fmt: skip
trainer.train()
