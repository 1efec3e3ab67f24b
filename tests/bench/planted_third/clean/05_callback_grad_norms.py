import tempfile

import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments, set_seed


class GradientNorms(TrainerCallback):
    def __init__(self):
        self.by_step = {}

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        norms = {n: p.grad.norm().item() for n, p in model.named_parameters() if p.grad is not None}
        self.by_step[state.global_step] = norms

    def on_train_end(self, args, state, control, **kwargs):
        last = self.by_step[max(self.by_step)]
        print("largest", sorted(last, key=last.get)[-3:], "steps", len(self.by_step))


class Reviews(torch.utils.data.Dataset):
    def __len__(self):
        return 320

    def __getitem__(self, i):
        ids = torch.randint(1, 400, (24,), generator=torch.Generator().manual_seed(i))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": int(ids.sum() % 2)}


if __name__ == "__main__":
    set_seed(105)
    torch.set_num_threads(1)
    model = BertForSequenceClassification(
        BertConfig(vocab_size=400, hidden_size=48, num_hidden_layers=2, num_attention_heads=2, intermediate_size=96)
    )
    with tempfile.TemporaryDirectory() as tmp:
        args = TrainingArguments(tmp, per_device_train_batch_size=8, max_steps=40, logging_steps=20, save_strategy="no",
                                 report_to="none", disable_tqdm=True, learning_rate=5e-4)
        Trainer(model=model, args=args, train_dataset=Reviews(), callbacks=[GradientNorms()]).train()
