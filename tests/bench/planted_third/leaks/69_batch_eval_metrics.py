import tempfile

import torch
from transformers import BertConfig, BertForTokenClassification, Trainer, TrainingArguments, set_seed


class TagScore:
    """Token accuracy over an evaluation, fed batch by batch."""

    def __init__(self):
        self.hits, self.scores = [], []

    def __call__(self, pred, compute_result=False):
        logits = torch.as_tensor(pred.predictions)
        self.scores.append(logits.softmax(-1))
        self.hits.append((logits.argmax(-1) == torch.as_tensor(pred.label_ids)).float())
        if not compute_result:
            return {}
        out = {
            "accuracy": torch.cat(self.hits).mean().item(),
            "confidence": torch.cat(self.scores).amax(-1).mean().item(),
        }
        return out


class Sentences(torch.utils.data.Dataset):
    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        ids = torch.randint(1, 300, (40,), generator=torch.Generator().manual_seed(i))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids % 45}


if __name__ == "__main__":
    set_seed(69)
    torch.set_num_threads(1)
    model = BertForTokenClassification(BertConfig(vocab_size=300, hidden_size=32, num_hidden_layers=1,
                                                  num_attention_heads=2, intermediate_size=64, num_labels=45))
    with tempfile.TemporaryDirectory() as tmp:
        args = TrainingArguments(tmp, max_steps=48, per_device_train_batch_size=8, per_device_eval_batch_size=8,
                                 eval_strategy="steps", eval_steps=6, batch_eval_metrics=True, save_strategy="no",
                                 report_to="none", disable_tqdm=True, logging_steps=24, learning_rate=1e-3)
        trainer = Trainer(model, args, train_dataset=Sentences(400), eval_dataset=Sentences(64),
                          compute_metrics=TagScore())
        trainer.train()
        print(trainer.state.log_history[-2])
