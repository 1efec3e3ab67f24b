import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

torch.manual_seed(126)
torch.set_num_threads(1)


class Rows(Dataset):
    def __init__(self, n):
        self.x = torch.randn(n, 40)
        self.y = self.x[:, :30].argmax(1)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return {"x": self.x[i], "labels": self.y[i]}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(40, 128), nn.GELU(), nn.Linear(128, 30))

    def forward(self, x, labels=None):
        logits = self.f(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class Accuracy:
    def __init__(self):
        self.right = self.count = 0

    def __call__(self, prediction, compute_result):
        self.right += (prediction.predictions.argmax(-1) == prediction.label_ids).sum().item()
        self.count += len(prediction.label_ids)
        if not compute_result:
            return {}
        value = self.right / self.count
        self.right = self.count = 0
        return {"accuracy": value}


args = TrainingArguments(
    output_dir="out", max_steps=60, per_device_train_batch_size=16, per_device_eval_batch_size=32, eval_strategy="steps",
    eval_steps=15, batch_eval_metrics=True, report_to="none", save_strategy="no", disable_tqdm=True, use_cpu=True,
)
Trainer(Net(), args, train_dataset=Rows(1000), eval_dataset=Rows(160), compute_metrics=Accuracy()).train()
