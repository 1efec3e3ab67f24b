import tempfile

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed


class Blocks(torch.utils.data.Dataset):
    def __init__(self, n, seed, length=32, vocab=2000):
        self.ids = torch.randint(0, vocab, (n, length), generator=torch.Generator().manual_seed(seed))

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, i):
        return {"input_ids": self.ids[i], "labels": self.ids[i]}


def compute_metrics(eval_pred):
    logits, labels = eval_pred
    pred = np.argmax(logits[:, :-1], axis=-1)
    return {"token_acc": float((pred == labels[:, 1:]).mean())}


def main():
    set_seed(1)
    torch.set_num_threads(1)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=2000, n_embd=48, n_layer=2, n_head=2, n_positions=32))
    with tempfile.TemporaryDirectory() as out:
        args = TrainingArguments(
            output_dir=out, per_device_train_batch_size=4, per_device_eval_batch_size=4, max_steps=40,
            eval_strategy="steps", eval_steps=20, save_strategy="no", report_to="none", disable_tqdm=True,
            logging_steps=20, learning_rate=1e-3,
        )
        trainer = Trainer(
            model=model, args=args, train_dataset=Blocks(160, 0), eval_dataset=Blocks(240, 1),
            compute_metrics=compute_metrics,
        )
        trainer.train()  # LEAK
        print(trainer.state.log_history[-2])


if __name__ == "__main__":
    main()
