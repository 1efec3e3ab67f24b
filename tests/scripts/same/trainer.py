"""transformers' Trainer on a small Llama: evaluation, checkpoints, and their best one at the end."""

import tempfile

import torch
from datasets import Dataset
from digest import show
from transformers import LlamaConfig, LlamaForCausalLM, PrinterCallback, Trainer, TrainingArguments, set_seed

set_seed(0)
config = LlamaConfig(
    vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=1, max_position_embeddings=32,
)  # fmt: skip
model = LlamaForCausalLM(config)
rows = torch.randint(64, (32, 12)).tolist()
data = Dataset.from_dict({"input_ids": rows, "labels": rows})
with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(
        folder, per_device_train_batch_size=4, num_train_epochs=2, eval_strategy="epoch", save_strategy="epoch",
        load_best_model_at_end=True, logging_steps=2, report_to="none", disable_tqdm=True, use_cpu=True, seed=0,
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=data, eval_dataset=data.select(range(8)))
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    for entry in trainer.state.log_history:
        print({key: value for key, value in entry.items() if key in ("loss", "eval_loss", "grad_norm", "step")})
show(model)
