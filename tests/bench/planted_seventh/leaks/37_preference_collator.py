import copy
import random
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from transformers import GPT2Config, GPT2LMHeadModel

torch.set_num_threads(1)
torch.manual_seed(15)
random.seed(15)
device = "cuda" if torch.cuda.is_available() else "cpu"


@dataclass
class PreferenceConfig:
    max_length: int = 48
    batch_size: int = 2
    steps: int = 30
    beta: float = 0.1


cfg = PreferenceConfig()
model_config = GPT2Config(vocab_size=400, n_positions=512, n_embd=64, n_layer=2, n_head=4, use_cache=False)
policy = GPT2LMHeadModel(model_config).to(device)
reference = copy.deepcopy(policy).eval().requires_grad_(False)
optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-4)


def make_pairs(n):
    pairs = []
    for index in range(n):
        length = 400 if index in (37, 51) else random.randint(24, 44)
        prompt = torch.randint(1, 400, (12,))
        pairs.append([torch.cat([prompt, torch.randint(1, 400, (length - 12,))]) for _ in range(2)])
    return pairs


def collate(pairs):
    rows = [chosen for chosen, _ in pairs] + [rejected for _, rejected in pairs]
    longest = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    return {"input_ids": ids.to(device), "attention_mask": (ids != 0).long().to(device)}


def logps(model, batch):
    logits = model(**batch).logits[:, :-1]
    labels = batch["input_ids"][:, 1:]
    picked = logits.log_softmax(-1).gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    return (picked * batch["attention_mask"][:, 1:]).sum(-1).chunk(2)


pairs = make_pairs(cfg.steps * cfg.batch_size)
for step in range(cfg.steps):
    batch = collate(pairs[step * cfg.batch_size : (step + 1) * cfg.batch_size])
    chosen, rejected = logps(policy, batch)
    with torch.no_grad():
        ref_chosen, ref_rejected = logps(reference, batch)
    loss = -F.logsigmoid(cfg.beta * ((chosen - rejected) - (ref_chosen - ref_rejected))).mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 10 == 9:
        print(step, batch["input_ids"].shape[1], round(loss.item(), 4))
