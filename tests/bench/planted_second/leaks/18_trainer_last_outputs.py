import tempfile

import torch
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments, set_seed


class Rows(Dataset):
    def __init__(self, n=320, length=24):
        g = torch.Generator().manual_seed(0)
        self.ids = torch.randint(5, 300, (n, length), generator=g)

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, i):
        ids = self.ids[i]
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": (ids[0] > 150).long()}


class EmbeddingTrainer(Trainer):
    """Keeps the sentence vectors of the training rows for a plot at the end."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.vectors = []

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        outputs = model(**inputs, output_hidden_states=True)
        self.vectors.append(outputs.hidden_states[-1].detach())  # LEAK
        loss = outputs.loss
        return (loss, outputs) if return_outputs else loss


set_seed(0)
torch.set_num_threads(1)
config = BertConfig(
    vocab_size=300, hidden_size=96, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
    max_position_embeddings=32, num_labels=2,
)
with tempfile.TemporaryDirectory() as out:
    args = TrainingArguments(
        output_dir=out, per_device_train_batch_size=8, num_train_epochs=2, learning_rate=5e-4, logging_steps=20,
        save_strategy="no", report_to="none", disable_tqdm=True,
    )
    trainer = EmbeddingTrainer(model=BertForSequenceClassification(config), args=args, train_dataset=Rows())
    trainer.train()
    firsts = torch.cat([v[:, 0] for v in trainer.vectors])
    print("vectors", firsts.shape, "variance", firsts.var(0).mean().item())
