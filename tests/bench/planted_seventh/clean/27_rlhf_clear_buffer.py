from dataclasses import dataclass, field

import torch
from transformers import GPT2Config, GPT2LMHeadModel

torch.set_num_threads(1)
torch.manual_seed(35)
device = "cuda" if torch.cuda.is_available() else "cpu"

config = GPT2Config(vocab_size=200, n_positions=64, n_embd=64, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0)
policy = GPT2LMHeadModel(config).to(device)
optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-4)
reward_weights = torch.randn(200, device=device)


@dataclass
class RolloutBuffer:
    items: list = field(default_factory=list)

    def add(self, **item):
        self.items.append(item)

    def minibatches(self):
        yield from self.items

    def clear(self):
        self.items.clear()


@torch.no_grad()
def rollout(prompts, new_tokens=4):
    ids = prompts
    for _ in range(new_tokens):
        logits = policy(ids, use_cache=False).logits[:, -1]
        ids = torch.cat([ids, torch.multinomial(logits.softmax(-1), 1)], dim=1)
    logps = policy(ids, use_cache=False).logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
    return ids, logps, reward_weights[ids[:, prompts.size(1) :]].mean(1)


buffer = RolloutBuffer()
for iteration in range(24):
    for _ in range(2):
        ids, logps, rewards = rollout(torch.randint(1, 200, (6, 16), device=device))
        buffer.add(ids=ids, logps=logps, rewards=rewards)
    baseline = torch.stack([item["rewards"].mean() for item in buffer.items]).mean()
    for item in buffer.minibatches():
        logits = policy(item["ids"], use_cache=False).logits[:, :-1]
        logps = logits.log_softmax(-1).gather(-1, item["ids"][:, 1:, None]).squeeze(-1)
        ratio = (logps - item["logps"]).exp()
        advantage = (item["rewards"] - baseline).unsqueeze(1)
        loss = -torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    buffer.clear()
    if iteration % 6 == 5:
        print(iteration, "reward", round(baseline.item(), 4), "loss", round(loss.item(), 4))
