import torch
from datasets import Dataset
from transformers import DistilBertConfig, DistilBertForSequenceClassification, Trainer, TrainingArguments

torch.manual_seed(6)
torch.set_num_threads(1)


class AccuracyTrainer(Trainer):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._hidden = []

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        outputs = model(**inputs, output_hidden_states=True)
        last = outputs.hidden_states[-1].detach()
        self._hidden.append((last, inputs["labels"]))
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def norm_by_class(self):
        states = torch.cat([h[:, 0] for h, _ in self._hidden])
        labels = torch.cat([y for _, y in self._hidden])
        return [states[labels == c].norm(dim=1).mean().item() for c in (0, 1)]


def rows(n=320, length=32):
    ids = torch.randint(5, 200, (n, length))
    return Dataset.from_dict({
        "input_ids": ids.tolist(),
        "attention_mask": torch.ones_like(ids).tolist(),
        "labels": (ids[:, 1] > 100).long().tolist(),
    })


config = DistilBertConfig(vocab_size=200, dim=64, hidden_dim=128, n_layers=2, n_heads=4, max_position_embeddings=64)
model = DistilBertForSequenceClassification(config)
args = TrainingArguments(
    output_dir="out", per_device_train_batch_size=8, max_steps=40, logging_steps=20,
    save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True,
)
trainer = AccuracyTrainer(model=model, args=args, train_dataset=rows())
trainer.train()
print(trainer.norm_by_class())
