import torch
from datasets import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments


class Curve(TrainerCallback):
    def __init__(self):
        self.points, self.weight_norms = [], []

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "loss" in logs:
            self.points.append((state.global_step, logs["loss"], logs.get("grad_norm")))

    def on_step_end(self, args, state, control, model=None, **kwargs):
        with torch.no_grad():
            self.weight_norms.append(sum(p.pow(2).sum() for p in model.parameters()).sqrt().item())


def corpus(n=120, length=24):
    ids = (torch.randint(90, (n, 1)) + 2 * torch.arange(length)) % 90
    return Dataset.from_dict({"input_ids": ids.tolist(), "labels": ids.tolist()})


if __name__ == "__main__":
    torch.manual_seed(127)
    torch.set_num_threads(1)
    config = GPT2Config(vocab_size=90, n_embd=64, n_layer=2, n_head=4, n_positions=32, use_cache=False)
    curve = Curve()
    trainer = Trainer(
        model=GPT2LMHeadModel(config),
        args=TrainingArguments(
            output_dir="o", per_device_train_batch_size=4, gradient_accumulation_steps=2, max_steps=30,
            logging_steps=5, save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True, learning_rate=2e-3,
        ),
        train_dataset=corpus(),
        callbacks=[curve],
    )
    trainer.train()
    print(curve.points[-1], len(curve.weight_norms))
