import tempfile

import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments, set_seed


class GradientWatch(TrainerCallback):
    def __init__(self):
        self.by_step = {}

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        grads = {n: p.grad.detach().clone() for n, p in model.named_parameters() if p.grad is not None}
        self.by_step[state.global_step] = grads

    def on_train_end(self, args, state, control, **kwargs):
        last = self.by_step[max(self.by_step)]
        top = sorted(last, key=lambda n: -last[n].norm().item())[:3]
        print("largest gradients at the end:", top)


class Reviews(torch.utils.data.Dataset):
    def __len__(self):
        return 320

    def __getitem__(self, i):
        g = torch.Generator().manual_seed(i)
        ids = torch.randint(1, 400, (24,), generator=g)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": int(ids.sum() % 2)}


if __name__ == "__main__":
    set_seed(7)
    torch.set_num_threads(1)
    cfg = BertConfig(vocab_size=400, hidden_size=48, num_hidden_layers=2, num_attention_heads=2, intermediate_size=96)
    model = BertForSequenceClassification(cfg)
    with tempfile.TemporaryDirectory() as tmp:
        args = TrainingArguments(
            output_dir=tmp, per_device_train_batch_size=8, max_steps=40, logging_steps=20, save_strategy="no",
            report_to="none", disable_tqdm=True, learning_rate=5e-4,
        )
        watch = GradientWatch()
        Trainer(model=model, args=args, train_dataset=Reviews(), callbacks=[watch]).train()
