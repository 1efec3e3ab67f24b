"""An evaluation of transformers' trainer collects its logits on the host, to count which are right."""

import tempfile

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

torch.manual_seed(0)
rows = [{"input_ids": ids, "labels": ids} for ids in torch.randint(3000, (100, 32))]
model = GPT2LMHeadModel(GPT2Config(vocab_size=3000, n_embd=32, n_layer=1, n_head=2, n_positions=32))


def share_right(outputs):
    return {"right": float((outputs.predictions[:, :-1].argmax(-1) == outputs.label_ids[:, 1:]).mean())}


with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(
        folder, per_device_train_batch_size=4, per_device_eval_batch_size=4, max_steps=8, eval_strategy="steps",
        eval_steps=8, eval_accumulation_steps=1, save_strategy="no", report_to="none", disable_tqdm=True,
    )  # fmt: skip
    data = {"train_dataset": rows[:40], "eval_dataset": rows}
    Trainer(model, arguments, compute_metrics=share_right, **data).train()  # the mistake
