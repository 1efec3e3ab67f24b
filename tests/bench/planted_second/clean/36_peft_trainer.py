import tempfile

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

set_seed(0)
torch.set_num_threads(1)


def rows():
    g = torch.Generator().manual_seed(0)
    for _ in range(200):
        ids = torch.randint(0, 200, (int(torch.randint(8, 25, (1,), generator=g)),), generator=g).tolist()
        yield {"input_ids": ids}


def collate(batch):
    n = max(len(b["input_ids"]) for b in batch)
    ids = torch.tensor([b["input_ids"] + [0] * (n - len(b["input_ids"])) for b in batch])
    mask = torch.tensor([[1] * len(b["input_ids"]) + [0] * (n - len(b["input_ids"])) for b in batch])
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


dataset = Dataset.from_list(list(rows()))
base = GPT2LMHeadModel(GPT2Config(vocab_size=200, n_embd=48, n_layer=2, n_head=2, n_positions=32))
model = get_peft_model(base, LoraConfig(r=8, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM"))
model.print_trainable_parameters()
with tempfile.TemporaryDirectory() as out:
    args = TrainingArguments(
        output_dir=out, per_device_train_batch_size=4, max_steps=60, learning_rate=5e-3, report_to="none", save_steps=30,
        logging_steps=20, disable_tqdm=True, remove_unused_columns=False,
    )
    trainer = Trainer(model=model, args=args, train_dataset=dataset, data_collator=collate)
    trainer.train()
    print([r.get("loss") for r in trainer.state.log_history])
