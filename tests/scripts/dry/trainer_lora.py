"""LoRA by Trainer with gradient checkpointing, reentrant or not, saving its checkpoints."""

import argparse

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, Trainer, TrainingArguments

SIZES = {
    "tiny": {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3,
             "num_attention_heads": 4, "num_key_value_heads": 2},
    "full": {"vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
             "num_attention_heads": 32, "num_key_value_heads": 8},
}  # fmt: skip
parser = argparse.ArgumentParser()
parser.add_argument("--size", choices=SIZES, default="tiny")
parser.add_argument("--reentrant", action="store_true")
args = parser.parse_args()

torch.manual_seed(0)
config = LlamaConfig(**SIZES[args.size])
model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
model.enable_input_require_grads()
lora = LoraConfig(
    r=16,
    lora_alpha=32,
    lora_dropout=0.05,
    bias="none",
    task_type="CAUSAL_LM",
    target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
)
model = get_peft_model(model, lora)
model.print_trainable_parameters()

length = 48 if args.size == "tiny" else 1024
ids = torch.randint(0, config.vocab_size, (24, length)).tolist()
trainer = Trainer(
    model=model,
    train_dataset=Dataset.from_dict({"input_ids": ids, "labels": ids}),
    args=TrainingArguments(
        output_dir="lora-out", per_device_train_batch_size=2, gradient_accumulation_steps=2, num_train_epochs=1,
        learning_rate=2e-4, bf16=True, gradient_checkpointing=True,
        gradient_checkpointing_kwargs={"use_reentrant": args.reentrant}, optim="adamw_torch_fused",
        logging_steps=1, save_strategy="steps", save_steps=3, report_to=[],
    ),
)  # fmt: skip
trainer.train()
model.save_pretrained("lora-out/final")
