from collections import deque

import torch
import torch.nn.functional as F
from transformers import GPT2Config, GPT2LMHeadModel

torch.set_num_threads(1)
torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"


class RewardWindow:
    def __init__(self, size=12):
        self.margins = deque(maxlen=size)
        self.logits = deque(maxlen=4)

    def push(self, margin, logits):
        self.margins.append(margin.detach())
        self.logits.append(logits.detach())

    def summary(self):
        return torch.stack(list(self.margins)).mean().item(), self.logits[-1].std().item()


def logps(logits, ids):
    return logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None]).squeeze(2).sum(-1)


config = GPT2Config(vocab_size=400, n_positions=32, n_embd=64, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0)
model = GPT2LMHeadModel(config).to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
window = RewardWindow()
for step in range(60):
    ids = torch.randint(400, (6, 24), device=device)
    logits = model(ids, use_cache=False).logits
    chosen, rejected = logps(logits, ids).chunk(2)
    margin = chosen - rejected
    loss = -F.logsigmoid(0.1 * margin).mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    window.push(margin, logits)
    if step % 20 == 0:
        print(step, *window.summary())
