import tempfile

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

torch.set_num_threads(1)
torch.manual_seed(0)


class Pairs(Dataset):
    def __init__(self, size):
        self.anchors = torch.randint(1500, (size, 10))

    def __len__(self):
        return len(self.anchors)

    def __getitem__(self, i):
        return {"anchor": self.anchors[i], "positive": self.anchors[i].roll(3)}


class Encoder(nn.Module):
    def __init__(self, dim=64):
        super().__init__()
        self.embed = nn.EmbeddingBag(1500, dim)
        self.dense = nn.Linear(dim, dim)
        self.last_scores = None

    def encode(self, ids):
        return F.normalize(self.dense(self.embed(ids)), dim=-1)

    def forward(self, anchor, positive):
        scores = self.encode(anchor) @ self.encode(positive).t() * 20
        self.last_scores = scores.detach()
        return {"loss": F.cross_entropy(scores, torch.arange(len(scores), device=scores.device))}


class SimilarityHistogram(TrainerCallback):
    def __init__(self):
        self.records = []

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.records.append({"step": state.global_step, "scores": model.last_scores})

    def on_train_end(self, args, state, control, **kwargs):
        for record in self.records[:: max(1, len(self.records) // 4)]:
            counts = torch.histc(record["scores"].float(), bins=5)
            print(record["step"], [int(c) for c in counts])


with tempfile.TemporaryDirectory() as out:
    args = TrainingArguments(
        output_dir=out,
        max_steps=60,
        per_device_train_batch_size=160,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        logging_steps=30,
        remove_unused_columns=False,
    )
    Trainer(model=Encoder(), args=args, train_dataset=Pairs(3200), callbacks=[SimilarityHistogram()]).train()
