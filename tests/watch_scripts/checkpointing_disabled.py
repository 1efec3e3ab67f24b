"""transformers: checkpointing is disabled for an evaluation, and never enabled again."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
model = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=100,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
)
model.gradient_checkpointing_enable()
model.train()
opt = torch.optim.AdamW(model.parameters())
for step in range(14):
    ids = torch.randint(100, (4, 40))
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    opt.step()
    opt.zero_grad()
    if step == 6:
        model.gradient_checkpointing_disable()  # the mistake
        model.eval()
        with torch.no_grad():
            for _ in range(3):
                model(input_ids=ids, labels=ids, use_cache=False)
        model.train()
