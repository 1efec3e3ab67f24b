from contextlib import contextmanager

import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.set_num_threads(1)
torch.manual_seed(48)
device = "cuda" if torch.cuda.is_available() else "cpu"

config = LlamaConfig(
    vocab_size=256,
    hidden_size=64,
    intermediate_size=192,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=4,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=None,
)
CHECKPOINTING = {"use_reentrant": False}
model = LlamaForCausalLM(config).to(device)
model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=CHECKPOINTING)
model.train()
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)


@contextmanager
def generation_mode(model):
    model.eval()
    model.gradient_checkpointing_disable()
    try:
        with torch.no_grad():
            yield model
    finally:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=CHECKPOINTING)
        model.train()


for step in range(36):
    ids = torch.randint(2, 256, (4, 48), device=device)
    loss = model(ids, labels=ids, use_cache=False).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 9 == 8:
        prompt = ids[:1, :4]
        with generation_mode(model) as generator:
            story = generator.generate(
                prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=5, do_sample=True
            )
        print(step, round(loss.item(), 4), story[0, 4:].tolist())
