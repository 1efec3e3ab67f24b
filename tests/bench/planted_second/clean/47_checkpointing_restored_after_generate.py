import contextlib

import torch
from transformers import GPT2Config, GPT2LMHeadModel

torch.manual_seed(0)
torch.set_num_threads(1)
model = GPT2LMHeadModel(
    GPT2Config(vocab_size=80, n_embd=48, n_layer=4, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=None, pad_token_id=0)
)
model.generation_config.eos_token_id = None
model.gradient_checkpointing_enable()


@contextlib.contextmanager
def for_generation(m):
    m.eval()
    m.gradient_checkpointing_disable()
    try:
        yield m
    finally:
        m.gradient_checkpointing_enable()
        m.train()


opt = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
model.train()
for step in range(1, 41):
    ids = (torch.randint(0, 80, (4, 1)) + torch.arange(64)) % 80
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 8 == 0:
        with for_generation(model), torch.no_grad():
            text = model.generate(ids[:1, :6], attention_mask=torch.ones(1, 6, dtype=torch.long), max_new_tokens=6, do_sample=False)
        print(step, loss.item(), text[0, 6:].tolist(), model.is_gradient_checkpointing)
