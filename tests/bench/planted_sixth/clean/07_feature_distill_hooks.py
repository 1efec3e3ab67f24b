import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


def cnn(ch):
    return nn.Sequential(
        nn.Conv2d(3, ch, 3, 2, 1), nn.ReLU(), nn.Conv2d(ch, ch, 3, 1, 1), nn.ReLU(), nn.Conv2d(ch, 32, 3, 1, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    ).to(device)  # fmt: skip


class FeatureTap:
    """Collects the outputs of some layers while the block is open."""

    def __init__(self, model, layers):
        self.model, self.layers = model, layers

    def __enter__(self):
        self.features, self.handles = [], []
        for name, module in self.model.named_children():
            if name in self.layers:
                self.handles.append(module.register_forward_hook(self._hook))
        return self

    def _hook(self, module, inputs, output):
        self.features.append(output)

    def __exit__(self, *exc):
        for handle in self.handles:
            handle.remove()
        self.handles = []


class Distiller:
    def __init__(self):
        self.teacher = cnn(48).eval().requires_grad_(False)
        self.student = cnn(16)
        self.optimizer = torch.optim.AdamW(self.student.parameters(), lr=1e-3)
        self.last_maps = {}
        self.student[2].register_forward_hook(self._remember)

    def _remember(self, module, inputs, output):
        self.last_maps["student.2"] = output.detach()

    def step(self, x, y):
        with torch.no_grad(), FeatureTap(self.teacher, ["4"]) as t:
            soft = self.teacher(x)
        with FeatureTap(self.student, ["4"]) as s:
            logits = self.student(x)
        loss = F.cross_entropy(logits, y) + F.kl_div(logits.log_softmax(1), soft.softmax(1), reduction="batchmean")
        loss = loss + sum(F.mse_loss(a, b) for a, b in zip(s.features, t.features))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


if __name__ == "__main__":
    distiller = Distiller()
    for step in range(60):
        images = torch.rand(8, 3, 48, 48, device=device)
        loss = distiller.step(images, torch.randint(0, 10, (8,), device=device))
        if step % 15 == 0:
            print(step, round(loss, 4), distiller.last_maps["student.2"].abs().mean().item())
