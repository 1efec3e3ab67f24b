import torch
from transformers import GPT2Config, GPT2LMHeadModel

torch.manual_seed(0)
torch.set_num_threads(1)

cfg = GPT2Config(
    vocab_size=96, n_embd=64, n_layer=8, n_head=4, n_positions=128, bos_token_id=0, eos_token_id=None, pad_token_id=0
)
model = GPT2LMHeadModel(cfg)
model.generation_config.eos_token_id = None
model.gradient_checkpointing_enable()


def show_sample(prompt):
    """Sampling with checkpointing is slow (no cache), so without."""
    model.eval()
    model.gradient_checkpointing_disable()  # LEAK
    text = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=8, do_sample=False)
    model.train()
    return text[0, -8:].tolist()


optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
model.train()
for step in range(1, 25):
    start = torch.randint(0, 96, (6, 1))
    ids = (start + torch.arange(128)) % 96
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 10 == 0:
        print(step, loss.item(), show_sample(ids[:1, :8]))
