"""Trainer, evaluated often; logits reduced before they are kept; lengths vary."""
import random, tempfile
import torch
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

set_seed(8)


class Lines(Dataset):
    def __init__(self, n, seed):
        r = random.Random(seed)
        self.rows = [[r.randrange(1, 700) for _ in range(r.randint(12, 40))] for _ in range(n)]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return {"input_ids": self.rows[i]}


def collate(rows):
    longest = max(len(r["input_ids"]) for r in rows)
    ids = torch.tensor([r["input_ids"] + [0] * (longest - len(r["input_ids"])) for r in rows])
    return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": ids.masked_fill(ids == 0, -100)}


def metrics(p):
    keep = p.label_ids[:, 1:] != -100
    return {"acc": float((p.predictions[:, :-1] == p.label_ids[:, 1:])[keep].mean())}


model = GPT2LMHeadModel(GPT2Config(vocab_size=700, n_embd=48, n_layer=2, n_head=2, n_positions=64, use_cache=False,
                                   bos_token_id=0, eos_token_id=0))
with tempfile.TemporaryDirectory() as out:
    args = TrainingArguments(out, per_device_train_batch_size=8, per_device_eval_batch_size=8, num_train_epochs=2,
                             eval_strategy="steps", eval_steps=15, report_to=[], save_strategy="no", use_cpu=True,
                             disable_tqdm=True, logging_steps=30)
    t = Trainer(model, args, collate, Lines(240, 1), Lines(96, 2), compute_metrics=metrics,
                preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(-1))
    t.train()
    print("done", t.state.global_step)
