import tempfile
import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments


class Regressor(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(24, 160), nn.SiLU(), nn.Linear(160, 160), nn.SiLU(), nn.Linear(160, 1))

    def forward(self, x, labels=None):
        y = self.net(x).squeeze(-1)
        return {"loss": nn.functional.mse_loss(y, labels), "logits": y}


class Rows(torch.utils.data.Dataset):
    def __init__(self, n=512):
        self.x = torch.randn(n, 24)
        self.y = self.x[:, :3].prod(1)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return {"x": self.x[i], "labels": self.y[i]}


class GradientNoise(TrainerCallback):
    def __init__(self):
        self.grads = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        flat = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        self.grads.append(flat)  # LEAK

    def on_log(self, args, state, control, logs=None, **kwargs):
        last = torch.stack(self.grads[-10:])
        print(state.global_step, "noise", (last.var(0).sum() / last.mean(0).pow(2).sum()).item())


torch.set_num_threads(1)
torch.manual_seed(0)
with tempfile.TemporaryDirectory() as out:
    Trainer(
        model=Regressor(),
        args=TrainingArguments(output_dir=out, max_steps=60, per_device_train_batch_size=8, logging_steps=20,
                               save_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True),
        train_dataset=Rows(),
        callbacks=[GradientNoise()],
    ).train()
