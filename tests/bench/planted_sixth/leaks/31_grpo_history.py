from dataclasses import dataclass

import torch
from transformers import GPT2Config, GPT2LMHeadModel

torch.set_num_threads(1)
torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"

VOCAB, PROMPT, NEW, GROUP = 512, 8, 8, 8


@dataclass
class Rollout:
    ids: torch.Tensor
    old_logps: torch.Tensor
    ref_logits: torch.Tensor
    advantage: torch.Tensor


class RolloutBuffer:
    def __init__(self):
        self.rollouts = []

    def add(self, rollout):
        self.rollouts.append(rollout)

    def latest(self, n):
        return self.rollouts[-n:]


def completion_logits(model, ids):
    return model(ids, use_cache=False).logits[:, PROMPT - 1 : -1]


def token_logps(logits, ids):
    return logits.log_softmax(-1).gather(-1, ids[:, PROMPT:, None]).squeeze(-1)


@torch.no_grad()
def collect(policy, reference):
    prompt = torch.randint(VOCAB, (1, PROMPT), device=device).repeat(GROUP, 1)
    ids = prompt
    for _ in range(NEW):
        probs = policy(ids, use_cache=False).logits[:, -1].softmax(-1)
        ids = torch.cat([ids, torch.multinomial(probs, 1)], dim=1)
    reward = (ids[:, PROMPT:] % 7 == 0).float().mean(-1)
    advantage = (reward - reward.mean()) / (reward.std() + 1e-4)
    old = token_logps(completion_logits(policy, ids), ids)
    return Rollout(ids, old, completion_logits(reference, ids), advantage)


config = GPT2Config(vocab_size=VOCAB, n_positions=32, n_embd=64, n_layer=2, n_head=4, resid_pdrop=0.0, attn_pdrop=0.0)
policy = GPT2LMHeadModel(config).to(device)
reference = GPT2LMHeadModel(config).to(device).eval()
reference.load_state_dict(policy.state_dict())
optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-4)
buffer = RolloutBuffer()

for iteration in range(25):
    for _ in range(2):
        buffer.add(collect(policy, reference))
    for rollout in buffer.latest(2):
        logits = completion_logits(policy, rollout.ids)
        logps = token_logps(logits, rollout.ids)
        ratio = (logps - rollout.old_logps).exp()
        kl = (rollout.ref_logits.log_softmax(-1).exp() * (rollout.ref_logits - logits)).sum(-1).mean()
        loss = -(ratio * rollout.advantage[:, None]).mean() + 0.01 * kl
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    if iteration % 5 == 0:
        print(iteration, round(loss.item(), 4))
