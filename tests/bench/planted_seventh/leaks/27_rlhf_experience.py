from dataclasses import dataclass

import torch
from transformers import GPT2Config, GPT2LMHeadModel

torch.set_num_threads(1)
torch.manual_seed(5)
device = "cuda" if torch.cuda.is_available() else "cpu"


@dataclass
class Experience:
    sequences: torch.Tensor
    old_logps: torch.Tensor
    values: torch.Tensor
    states: torch.Tensor
    rewards: torch.Tensor


config = GPT2Config(vocab_size=200, n_positions=64, n_embd=96, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0)
policy = GPT2LMHeadModel(config).to(device)
critic = torch.nn.Linear(96, 1).to(device)
optimizer = torch.optim.AdamW([*policy.parameters(), *critic.parameters()], lr=1e-4)
reward_weights = torch.randn(200, device=device)


class ExperienceMaker:
    def __init__(self):
        self.history = []

    @torch.no_grad()
    def collect(self, prompts, new_tokens=4):
        ids = prompts
        for _ in range(new_tokens):
            logits = policy(ids, use_cache=False).logits[:, -1]
            ids = torch.cat([ids, torch.multinomial(logits.softmax(-1), 1)], dim=1)
        out = policy.transformer(ids, use_cache=False).last_hidden_state
        logps = policy.lm_head(out)[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
        rewards = reward_weights[ids[:, prompts.size(1) :]].mean(1)
        experience = Experience(ids, logps, critic(out).squeeze(-1), out, rewards)
        self.history.append(experience)

    def recent(self, n):
        return self.history[-n:]


def ppo_step(exp):
    hidden = policy.transformer(exp.sequences, use_cache=False).last_hidden_state
    logps = policy.lm_head(hidden)[:, :-1].log_softmax(-1).gather(-1, exp.sequences[:, 1:, None]).squeeze(-1)
    advantage = (exp.rewards - exp.values.mean(1)).unsqueeze(1)
    ratio = (logps - exp.old_logps).exp()
    policy_loss = -torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()
    value_loss = (critic(exp.states).squeeze(-1) - exp.rewards.unsqueeze(1)).pow(2).mean()
    loss = policy_loss + 0.1 * value_loss
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


maker = ExperienceMaker()
for iteration in range(24):
    for _ in range(2):
        maker.collect(torch.randint(1, 200, (6, 20), device=device))
    losses = [ppo_step(exp) for exp in maker.recent(2)]
    if iteration % 6 == 5:
        print(iteration, [round(x, 4) for x in losses])
