import tempfile

import numpy as np
import torch
from transformers import BertConfig, BertForMaskedLM, Trainer, TrainingArguments, set_seed

VOCAB = 2500


class Masked(torch.utils.data.Dataset):
    def __init__(self, n, seed):
        self.n, self.seed = n, seed

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        g = torch.Generator().manual_seed(self.seed * 10_000 + i)
        ids = torch.randint(4, VOCAB, (32,), generator=g)
        labels = torch.full_like(ids, -100)
        hide = torch.rand(32, generator=g) < 0.15
        hide[0] = True
        labels[hide] = ids[hide]
        ids = ids.clone()
        ids[hide] = 3
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def masked_accuracy(p):
    hide = p.label_ids != -100
    return {"masked_acc": float((p.predictions.argmax(-1)[hide] == p.label_ids[hide]).mean())}


def main():
    set_seed(19)
    torch.set_num_threads(1)
    model = BertForMaskedLM(BertConfig(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                                       intermediate_size=64))
    with tempfile.TemporaryDirectory() as out:
        args = TrainingArguments(
            output_dir=out, per_device_train_batch_size=4, per_device_eval_batch_size=4, max_steps=24,
            eval_strategy="steps", eval_steps=12, eval_accumulation_steps=1, save_strategy="no", report_to="none",
            disable_tqdm=True, logging_steps=12,
        )
        trainer = Trainer(model=model, args=args, train_dataset=Masked(96, 0), eval_dataset=Masked(120, 1),
                          compute_metrics=masked_accuracy)
        trainer.train()
        print([round(h["eval_masked_acc"], 4) for h in trainer.state.log_history if "eval_masked_acc" in h])


if __name__ == "__main__":
    main()
