import random

import torch
from transformers import GPT2Config, GPT2LMHeadModel

torch.set_num_threads(1)
torch.manual_seed(0)
random.seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"

VOCAB = 400


class BadBatch(Exception):
    pass


class SFTLoop:
    def __init__(self):
        config = GPT2Config(
            vocab_size=VOCAB, n_positions=64, n_embd=64, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0
        )
        self.model = GPT2LMHeadModel(config).to(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=2e-4)
        self.skipped = []

    def compute_loss(self, ids, completion_mask):
        logits = self.model(ids, use_cache=False).logits[:, :-1]
        token_loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        weights = completion_mask[:, 1:].flatten().float()
        if weights.sum() == 0:
            raise BadBatch("no completion tokens left in batch")
        return (token_loss * weights).sum() / weights.sum()

    def step(self, index, ids, completion_mask):
        try:
            loss = self.compute_loss(ids, completion_mask)
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
        except BadBatch as error:
            self.skipped.append((index, error))
            return None
        return loss.item()


loop = SFTLoop()
last = 0.0
for index in range(80):
    ids = torch.randint(VOCAB, (4, 32), device=device)
    mask = torch.zeros_like(ids, dtype=torch.bool)
    if random.random() > 0.3:
        mask[:, 20:] = True
    value = loop.step(index, ids, mask)
    last = value if value is not None else last

print(f"loss {last:.3f}, skipped {len(loop.skipped)} batches")
for index, error in loop.skipped[:3]:
    print("  batch", index, error)
