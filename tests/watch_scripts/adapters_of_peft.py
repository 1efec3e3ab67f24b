"""peft: an adapter for each round of the training, and none is deleted."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
base = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
    )
)
config = LoraConfig(r=16, target_modules=["q_proj", "v_proj"])
model = get_peft_model(base, config)
opt = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
for step in range(24):
    ids = torch.randint(64, (2, 16))
    model(input_ids=ids, labels=ids).loss.backward()
    opt.step()
    opt.zero_grad()
    if step % 3 == 2:
        model.add_adapter(f"round{step}", config)  # the mistake
