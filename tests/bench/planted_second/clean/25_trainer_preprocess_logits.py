import tempfile

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed


class Blocks(torch.utils.data.Dataset):
    def __init__(self, n, seed):
        self.ids = torch.randint(0, 1000, (n, 24), generator=torch.Generator().manual_seed(seed))

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, i):
        return {"input_ids": self.ids[i], "labels": self.ids[i]}


def preprocess_logits_for_metrics(logits, labels):
    if isinstance(logits, tuple):
        logits = logits[0]
    return logits.argmax(dim=-1)


def compute_metrics(p):
    return {"accuracy": float((p.predictions[:, :-1] == p.label_ids[:, 1:]).mean())}


set_seed(0)
torch.set_num_threads(1)
model = GPT2LMHeadModel(GPT2Config(vocab_size=1000, n_embd=48, n_layer=2, n_head=2, n_positions=32, use_cache=False))
with tempfile.TemporaryDirectory() as out:
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=out, max_steps=60, eval_strategy="steps", eval_steps=20, per_device_train_batch_size=4,
            per_device_eval_batch_size=4, save_strategy="no", report_to="none", logging_steps=20, disable_tqdm=True,
        ),
        train_dataset=Blocks(200, 0),
        eval_dataset=Blocks(60, 1),
        compute_metrics=compute_metrics,
        preprocess_logits_for_metrics=preprocess_logits_for_metrics,
    )
    trainer.train()
    print([round(r["eval_accuracy"], 4) for r in trainer.state.log_history if "eval_accuracy" in r])
