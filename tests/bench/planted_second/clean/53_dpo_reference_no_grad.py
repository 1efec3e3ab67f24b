import copy

import torch
import torch.nn.functional as F
from transformers import GPT2Config, GPT2LMHeadModel

torch.manual_seed(0)
torch.set_num_threads(1)


def logps(model, ids, prompt_len):
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    lp = logits.log_softmax(-1).gather(2, ids[:, 1:, None]).squeeze(2)
    return lp[:, prompt_len - 1 :].sum(1)


policy = GPT2LMHeadModel(GPT2Config(vocab_size=120, n_embd=48, n_layer=2, n_head=4, n_positions=32))
reference = copy.deepcopy(policy).eval().requires_grad_(False)
opt = torch.optim.AdamW(policy.parameters(), lr=2e-4)
stats = {"reward_acc": [], "margin": []}
pairs = []
for _ in range(20):
    prompt = torch.randint(0, 120, (4, 8))
    good, bad = torch.randint(0, 60, (4, 12)), torch.randint(60, 120, (4, 12))
    pairs.append((torch.cat([prompt, good], 1), torch.cat([prompt, bad], 1)))
with torch.no_grad():
    precomputed = [(logps(reference, c, 8), logps(reference, r, 8)) for c, r in pairs]
del reference

for epoch in range(3):
    for (chosen, rejected), (rc, rr) in zip(pairs, precomputed):
        margin = (logps(policy, chosen, 8) - rc) - (logps(policy, rejected, 8) - rr)
        loss = -F.logsigmoid(0.1 * margin).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        stats["reward_acc"].append((margin > 0).float().mean().item())
        stats["margin"].append(margin.mean().item())
    print(epoch, sum(stats["reward_acc"][-20:]) / 20, sum(stats["margin"][-20:]) / 20)
