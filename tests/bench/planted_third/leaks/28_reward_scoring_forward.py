from torch import nn
import torch
from transformers import GPT2Config, GPT2Model


class RewardModel(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.backbone = GPT2Model(config)
        self.value = nn.Linear(config.n_embd, 1)

    def forward(self, ids):
        hidden = self.backbone(ids).last_hidden_state
        return self.value(hidden[:, -1]).squeeze(-1)


def score(model, completions):
    model.eval()
    with torch.inference_mode():
        rewards = [model(part) for part in completions.split(8)]
    return torch.cat(rewards)


def best_of_n(model, rounds=2, n=16, length=320):
    winners = []
    for r in range(rounds):
        completions = torch.randint(0, 256, (n, length))
        rewards = score(model, completions)
        winners.append((int(rewards.argmax()), round(float(rewards.max()), 4)))
    return winners


def pretrain(model, steps=6):
    model.backbone.gradient_checkpointing_enable()
    model.train()
    opt = torch.optim.SGD(model.parameters(), 1e-2)
    for _ in range(steps):
        chosen, rejected = torch.randint(0, 256, (2, 2, 120))
        loss = -nn.functional.logsigmoid(model(chosen) - model(rejected)).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    return loss.item()


torch.manual_seed(28)
torch.set_num_threads(1)
model = RewardModel(GPT2Config(vocab_size=256, n_embd=96, n_layer=6, n_head=4, n_positions=512))
print("ranking loss", pretrain(model))
print("winners", best_of_n(model))
