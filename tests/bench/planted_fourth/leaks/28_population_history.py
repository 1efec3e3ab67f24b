import copy
import random
from dataclasses import dataclass, field

import torch
from torch import nn

random.seed(28)
torch.manual_seed(28)
torch.set_num_threads(1)


@dataclass
class Member:
    model: nn.Module
    opt: torch.optim.Optimizer
    lr: float
    score: float = 0.0
    born: int = 0
    lineage: list = field(default_factory=list)


def spawn(lr, model=None, born=0):
    model = copy.deepcopy(model) if model else nn.Sequential(nn.Linear(24, 160), nn.ReLU(), nn.Linear(160, 160), nn.ReLU(), nn.Linear(160, 4))
    return Member(model, torch.optim.Adam(model.parameters(), lr), lr, born=born)


def train(member, steps=5):
    for _ in range(steps):
        x = torch.randn(64, 24)
        loss = nn.functional.cross_entropy(member.model(x), x[:, :4].argmax(1))
        member.opt.zero_grad()
        loss.backward()
        member.opt.step()
    member.score = -loss.item()


def exploit(population, generation):
    ranked = sorted(range(len(population)), key=lambda i: population[i].score)
    worst, best = population[ranked[0]], population[ranked[-1]]
    child = spawn(best.lr * random.choice([0.8, 1.25]), best.model, generation)
    child.lineage = best.lineage + [worst]
    population[ranked[0]] = child


population = [spawn(lr) for lr in (1e-4, 5e-4, 2e-3, 5e-3)]
for generation in range(16):
    for member in population:
        train(member)
    exploit(population, generation)
    if generation % 4 == 3:
        top = max(population, key=lambda m: m.score)
        print(generation, f"lr {top.lr:.5f} score {top.score:.3f} ancestors {len(top.lineage)}")
