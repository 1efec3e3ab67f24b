"""Learning from preferences with TRL: DPO over LoRA, and ORPO and CPO, which need no reference model."""

import argparse
import random

import torch
from datasets import Dataset
from peft import LoraConfig
from small_tokenizer import WORDS, make_tokenizer
from transformers import AutoModelForCausalLM, LlamaConfig

SIZES = {
    "tiny": {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2},
    "full": {"vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
             "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "tie_word_embeddings": True},
}  # fmt: skip
parser = argparse.ArgumentParser()
parser.add_argument("--size", choices=SIZES, default="tiny")
parser.add_argument("--method", choices=["dpo", "orpo", "cpo"], default="dpo")
args = parser.parse_args()
if args.method == "dpo":
    from trl import DPOConfig as Config
    from trl import DPOTrainer as PreferenceTrainer
elif args.method == "orpo":
    from trl.experimental.orpo import ORPOConfig as Config
    from trl.experimental.orpo import ORPOTrainer as PreferenceTrainer
else:
    from trl.experimental.cpo import CPOConfig as Config
    from trl.experimental.cpo import CPOTrainer as PreferenceTrainer

rng = random.Random(0)
torch.manual_seed(0)


def said(low, high):
    return " ".join(rng.choices(WORDS, k=rng.randint(low, high)))


def pair():
    return {"prompt": said(5, 20), "chosen": said(5, 40), "rejected": said(5, 40)}


model = AutoModelForCausalLM.from_config(LlamaConfig(**SIZES[args.size]), dtype=torch.bfloat16)
trainer = PreferenceTrainer(
    model=model,
    args=Config(
        output_dir="preferences", per_device_train_batch_size=2, max_steps=5, max_length=64, bf16=True,
        logging_steps=1, save_strategy="no", report_to="none", gradient_checkpointing=False,
    ),
    train_dataset=Dataset.from_list([pair() for _ in range(16)]),
    processing_class=make_tokenizer(),
    peft_config=LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"),
)  # fmt: skip
trainer.train()
