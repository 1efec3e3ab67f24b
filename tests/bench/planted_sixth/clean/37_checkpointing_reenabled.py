import contextlib

import torch
from transformers import GPT2Config, GPT2LMHeadModel

torch.set_num_threads(1)
torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"

VOCAB, LENGTH = 256, 96


@contextlib.contextmanager
def generation_mode(model):
    model.gradient_checkpointing_disable()
    model.eval()
    try:
        with torch.no_grad():
            yield model
    finally:
        model.train()
        model.gradient_checkpointing_enable()


config = GPT2Config(
    vocab_size=VOCAB,
    n_positions=LENGTH,
    n_embd=64,
    n_layer=6,
    n_head=4,
    bos_token_id=0,
    eos_token_id=None,
    pad_token_id=0,
)
model = GPT2LMHeadModel(config).to(device)
model.gradient_checkpointing_enable()
model.train()
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
for step in range(1, 25):
    ids = torch.randint(1, VOCAB, (4, LENGTH), device=device)
    loss = model(ids, labels=ids, use_cache=False).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 6 == 0:
        with generation_mode(model) as generator:
            tokens = generator.generate(ids[:2, :4], max_new_tokens=6, do_sample=True)
        print(step, round(loss.item(), 3), tokens[0, 4:].tolist())
