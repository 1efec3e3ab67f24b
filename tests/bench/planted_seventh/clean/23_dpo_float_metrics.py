import copy
from collections import defaultdict

import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM

torch.set_num_threads(1)
torch.manual_seed(31)
device = "cuda" if torch.cuda.is_available() else "cpu"

config = LlamaConfig(
    vocab_size=800,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    use_cache=False,
)


class DPO:
    def __init__(self, beta=0.1):
        self.policy = LlamaForCausalLM(config).to(device)
        self.reference = copy.deepcopy(self.policy).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(self.policy.parameters(), lr=1e-4)
        self.beta = beta
        self.stored_metrics = defaultdict(list)

    def logps(self, model, ids):
        logits = model(ids).logits[:, :-1]
        return logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1).sum(-1)

    def step(self, chosen, rejected):
        ids = torch.cat([chosen, rejected])
        policy = self.logps(self.policy, ids)
        with torch.no_grad():
            reference = self.logps(self.reference, ids)
        rewards = self.beta * (policy - reference)
        chosen_rewards, rejected_rewards = rewards.chunk(2)
        loss = -F.logsigmoid(chosen_rewards - rejected_rewards).mean()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.stored_metrics["loss"].append(loss.item())
        self.stored_metrics["rewards/margin"].append((chosen_rewards - rejected_rewards).mean().item())
        self.stored_metrics["rewards/accuracy"].append((chosen_rewards > rejected_rewards).float().mean().item())

    def log(self, step):
        means = {key: round(sum(values) / len(values), 4) for key, values in self.stored_metrics.items()}
        self.stored_metrics.clear()
        print(step, means)


dpo = DPO()
for step in range(40):
    dpo.step(*torch.randint(0, 800, (2, 3, 24), device=device))
    if step % 10 == 9:
        dpo.log(step)
