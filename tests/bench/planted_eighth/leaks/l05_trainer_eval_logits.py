"""Language model with transformers' Trainer; accuracy over the evaluation set from whole logits."""
import random, tempfile
import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

set_seed(11)
VOCAB = 900


class Lines(Dataset):
    def __init__(self, n, seed):
        r = random.Random(seed)
        self.rows = [[r.randrange(1, VOCAB) for _ in range(r.randint(16, 48))] for _ in range(n)]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return {"input_ids": self.rows[i]}


def collate(rows):
    longest = max(len(r["input_ids"]) for r in rows)
    ids = torch.tensor([r["input_ids"] + [0] * (longest - len(r["input_ids"])) for r in rows])
    return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": ids.masked_fill(ids == 0, -100)}


def metrics(p):
    preds = np.argmax(p.predictions[:, :-1], -1)
    want = p.label_ids[:, 1:]
    keep = want != -100
    return {"acc": float((preds == want)[keep].mean())}


model = GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB, n_embd=48, n_layer=2, n_head=2, n_positions=64,
                                   bos_token_id=0, eos_token_id=0, use_cache=False))
with tempfile.TemporaryDirectory() as out:
    args = TrainingArguments(out, per_device_train_batch_size=8, per_device_eval_batch_size=8, num_train_epochs=1,
                             eval_strategy="steps", eval_steps=20, report_to=[], save_strategy="no", use_cpu=True,
                             disable_tqdm=True, logging_steps=20)
    trainer = Trainer(model, args, collate, Lines(320, 1), Lines(200, 2), compute_metrics=metrics)
    trainer.train()  # LEAK
    print("done", trainer.state.global_step)
