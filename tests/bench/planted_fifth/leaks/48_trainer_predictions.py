import torch
from torch.utils.data import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

torch.manual_seed(48)
torch.set_num_threads(1)
VOCAB = 1500


class Counting(Dataset):
    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        ids = (torch.arange(24) * (i % 5 + 1) + i) % VOCAB
        return {"input_ids": ids, "labels": ids}


def compute_metrics(prediction):
    guess = prediction.predictions[:, :-1].argmax(-1)
    return {"accuracy": float((guess == prediction.label_ids[:, 1:]).mean())}


def build():
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=48, intermediate_size=96, num_hidden_layers=1, num_attention_heads=4, use_cache=False
    )
    return LlamaForCausalLM(config)


args = TrainingArguments(
    output_dir="out", max_steps=60, per_device_train_batch_size=4, per_device_eval_batch_size=4, learning_rate=1e-3,
    eval_strategy="steps", eval_steps=20, report_to="none", save_strategy="no", disable_tqdm=True, use_cpu=True,
)
trainer = Trainer(build(), args, train_dataset=Counting(400), eval_dataset=Counting(72), compute_metrics=compute_metrics)
trainer.train()
