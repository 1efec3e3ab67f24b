import tempfile
import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments


class Tokens(Dataset):
    def __init__(self, n, seed):
        g = torch.Generator().manual_seed(seed)
        self.x = torch.randint(0, 2500, (n, 32), generator=g)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return {"input_ids": self.x[i], "labels": self.x[i]}


def compute_metrics(p):
    pred = np.argmax(p.predictions[:, :-1], -1)
    return {"acc": float((pred == p.label_ids[:, 1:]).mean())}


def main():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=2500, n_positions=32, n_embd=32, n_layer=1, n_head=2,
                                       bos_token_id=0, eos_token_id=0))
    with tempfile.TemporaryDirectory() as tmp:
        args = TrainingArguments(
            output_dir=tmp, max_steps=40, per_device_train_batch_size=2, per_device_eval_batch_size=2,
            eval_strategy="steps", eval_steps=20, logging_steps=10, save_strategy="no",
            report_to="none", use_cpu=True, disable_tqdm=True, seed=0)
        trainer = Trainer(
            model=model,
            args=args,
            train_dataset=Tokens(80, 1),
            eval_dataset=Tokens(64, 2),
            compute_metrics=compute_metrics,  # LEAK
        )
        trainer.train()


if __name__ == "__main__":
    main()
