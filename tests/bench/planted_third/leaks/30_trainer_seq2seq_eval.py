import tempfile

import torch
from transformers import T5Config, T5ForConditionalGeneration, Trainer, TrainingArguments, set_seed


class Pairs(torch.utils.data.Dataset):
    def __init__(self, n, vocab, seed):
        g = torch.Generator().manual_seed(seed)
        self.src = torch.randint(2, vocab, (n, 40), generator=g)

    def __len__(self):
        return self.src.shape[0]

    def __getitem__(self, i):
        return {"input_ids": self.src[i], "labels": self.src[i].flip(0)}


def build(vocab):
    return T5ForConditionalGeneration(
        T5Config(vocab_size=vocab, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, decoder_start_token_id=0)
    )


if __name__ == "__main__":
    set_seed(30)
    torch.set_num_threads(1)
    VOCAB = 10000
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            output_dir=folder,
            max_steps=6,
            per_device_train_batch_size=1,
            gradient_accumulation_steps=4,
            learning_rate=1e-3,
            optim="sgd",
            prediction_loss_only=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = Trainer(build(VOCAB), args, train_dataset=Pairs(32, VOCAB, 0), eval_dataset=Pairs(24, VOCAB, 1))
        trainer.train()
        print(trainer.evaluate()["eval_loss"])
