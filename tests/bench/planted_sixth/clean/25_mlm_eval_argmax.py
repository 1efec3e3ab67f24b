import tempfile

import torch
from torch.utils.data import Dataset
from transformers import BertConfig, BertForMaskedLM, Trainer, TrainingArguments

torch.set_num_threads(1)
torch.manual_seed(0)


class MaskedTokens(Dataset):
    def __init__(self, size, length=24, vocab=800):
        self.ids = torch.randint(5, vocab, (size, length))
        self.mask = torch.rand(size, length) < 0.15

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, i):
        labels = self.ids[i].masked_fill(~self.mask[i], -100)
        return {"input_ids": self.ids[i].masked_fill(self.mask[i], 4), "labels": labels}


def keep_argmax(logits, labels):
    return logits.argmax(dim=-1)


def compute_metrics(pred):
    keep = pred.label_ids != -100
    return {"accuracy": float((pred.predictions[keep] == pred.label_ids[keep]).mean())}


config = BertConfig(
    vocab_size=800,
    hidden_size=48,
    num_hidden_layers=1,
    num_attention_heads=4,
    intermediate_size=96,
    max_position_embeddings=64,
)
with tempfile.TemporaryDirectory() as out:
    args = TrainingArguments(
        output_dir=out,
        max_steps=30,
        per_device_train_batch_size=8,
        per_device_eval_batch_size=8,
        eval_strategy="steps",
        eval_steps=15,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        logging_steps=15,
    )
    trainer = Trainer(
        model=BertForMaskedLM(config),
        args=args,
        train_dataset=MaskedTokens(240),
        eval_dataset=MaskedTokens(160),
        compute_metrics=compute_metrics,
        preprocess_logits_for_metrics=keep_argmax,
    )
    trainer.train()
