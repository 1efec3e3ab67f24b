import torch
import torch.nn.functional as F
from transformers import GPT2Config, GPT2LMHeadModel

torch.manual_seed(0)
torch.set_num_threads(1)


class RolloutStore:
    def __init__(self):
        self.items = []

    def add(self, rollout, reward):
        self.items.append((rollout, reward))  # LEAK

    def last(self, n):
        return self.items[-n:]


cfg = GPT2Config(vocab_size=120, n_embd=96, n_layer=3, n_head=4, n_positions=32, bos_token_id=0, eos_token_id=None, pad_token_id=0)
policy = GPT2LMHeadModel(cfg)
policy.generation_config.eos_token_id = None
optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-4)
store = RolloutStore()

for it in range(40):
    prompts = torch.randint(1, 120, (8, 6))
    policy.eval()
    with torch.no_grad():
        rollout = policy.generate(
            prompts, attention_mask=torch.ones_like(prompts), do_sample=True, max_new_tokens=8, return_dict_in_generate=True
        )
    reward = (rollout.sequences[:, 6:] < 40).float().mean(1)
    store.add(rollout, reward)

    policy.train()
    seqs = torch.cat([r.sequences for r, _ in store.last(2)])
    rew = torch.cat([w for _, w in store.last(2)])
    adv = (rew - rew.mean()) / (rew.std() + 1e-4)
    logp = F.log_softmax(policy(input_ids=seqs, use_cache=False).logits[:, 5:-1], -1)
    logp = logp.gather(2, seqs[:, 6:, None]).squeeze(2).sum(1)
    loss = -(adv * logp).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if it % 10 == 0:
        print(it, "reward", reward.mean().item())
