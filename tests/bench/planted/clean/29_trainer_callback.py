import tempfile
import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, 3))

    def forward(self, x, labels=None):
        out = self.f(x)
        return {"loss": nn.functional.cross_entropy(out, labels), "logits": out}


class Drift(TrainerCallback):
    def __init__(self):
        self.start, self.track = None, []

    def flat(self, model):
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    def on_train_begin(self, args, state, control, model=None, **kw):
        self.start = self.flat(model)

    def on_step_end(self, args, state, control, model=None, **kw):
        self.track.append((self.flat(model) - self.start).norm().item())


X = [dict(x=torch.linspace(-1, 1, 16).roll(i), labels=i % 3) for i in range(90)]
torch.set_num_threads(1)
torch.manual_seed(28)
drift = Drift()
with tempfile.TemporaryDirectory() as d:
    args = TrainingArguments(d, max_steps=60, per_device_train_batch_size=6, logging_steps=30, save_strategy="no",
                             report_to="none", use_cpu=True, disable_tqdm=True)
    Trainer(model=Net(), args=args, train_dataset=X, callbacks=[drift]).train()
print(drift.track[0], drift.track[-1], len(drift.track))
