"""TRL's GRPO of an adapter against a reference; prompts are of one length."""

from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig
from small_tokenizer import WORDS, make_tokenizer
from transformers import AutoModelForCausalLM, LlamaConfig
from trl import GRPOConfig, GRPOTrainer

PROMPT, COMPLETION = 256, 24


def reward(completions, **_):
    return [float(len(text)) for text in completions]


config = LlamaConfig.from_json_file(str(Path(__file__).with_suffix(".json")))
trainer = GRPOTrainer(
    model=AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16),
    reward_funcs=reward,
    processing_class=make_tokenizer(),
    train_dataset=Dataset.from_list([{"prompt": " ".join([WORDS[0]] * PROMPT)}] * 32),
    peft_config=LoraConfig(
        r=8, lora_alpha=16, lora_dropout=0.05, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
        task_type="CAUSAL_LM",
    ),
    args=GRPOConfig(
        output_dir="grpo-out", per_device_train_batch_size=8, gradient_accumulation_steps=2, num_generations=4,
        max_completion_length=COMPLETION, max_steps=2, bf16=True, beta=0.1, save_strategy="no", report_to="none",
    ),
)  # fmt: skip
trainer.train()
