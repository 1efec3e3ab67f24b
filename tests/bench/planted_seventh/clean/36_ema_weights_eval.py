import copy

import torch
from transformers import GPT2Config, GPT2LMHeadModel

torch.set_num_threads(1)
torch.manual_seed(44)
device = "cuda" if torch.cuda.is_available() else "cpu"


class EMA:
    def __init__(self, model, decay=0.98):
        self.shadow = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model):
        for s, p in zip(self.shadow.parameters(), model.parameters()):
            s.lerp_(p, 1 - self.decay)


config = GPT2Config(vocab_size=400, n_positions=32, n_embd=64, n_layer=2, n_head=4, use_cache=False)
model = GPT2LMHeadModel(config).to(device)
ema = EMA(model)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
held_out = torch.randint(0, 400, (4, 32), device=device)
history = []

for step in range(50):
    ids = torch.randint(0, 400, (4, 32), device=device)
    loss = model(ids, labels=ids).loss
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    ema.update(model)
    if step % 10 == 9:
        with torch.no_grad():
            history.append(ema.shadow(held_out, labels=held_out).loss.item())
        print(step, f"train {loss.item():.4f} ema eval {history[-1]:.4f}")
