from __future__ import annotations

import dataclasses
import statistics

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclasses.dataclass(frozen=True)
class StepRecord:
    step: int
    loss: float
    depth: Tensor
    confidence: Tensor


class Report:
    def __init__(self) -> None:
        self._rows: list[StepRecord] = []

    def __iadd__(self, row: StepRecord) -> "Report":
        self._rows.append(row)
        return self

    def summary(self) -> str:
        losses = [r.loss for r in self._rows]
        return f"{len(losses)} steps, mean loss {statistics.fmean(losses):.4f}"


def conv(i: int, o: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.ReLU())


def train(steps: int = 90) -> Report:
    net = nn.Sequential(conv(3, 12), conv(12, 12), nn.Conv2d(12, 2, 1))
    opt = torch.optim.AdamW(net.parameters(), lr=2e-3)
    report = Report()
    for s in range(steps):
        frame = torch.rand(6, 3, 32, 48)
        truth = frame.mean(1, keepdim=True)
        depth, conf = net(frame).chunk(2, 1)
        loss = (F.l1_loss(depth, truth, reduction="none") * conf.sigmoid()).mean() - 0.05 * F.logsigmoid(conf).mean()
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
        report += StepRecord(s, loss.item(), depth.detach(), conf.detach())
        if (s + 1) % 30 == 0:
            print(report.summary())
    return report


torch.manual_seed(21)
torch.set_num_threads(1)
train()
