"""generate in all its ways: greedy, sampled, with beams, and streamed."""

import torch
from digest import show
from transformers import LlamaConfig, LlamaForCausalLM, set_seed

set_seed(0)
config = LlamaConfig(
    vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=1, max_position_embeddings=64, pad_token_id=0, eos_token_id=63,
)  # fmt: skip
model = LlamaForCausalLM(config).eval()
prompt = torch.randint(1, 60, (2, 5))
for settings in ({"do_sample": False}, {"do_sample": True, "top_k": 10}, {"num_beams": 3, "do_sample": False}):
    output = model.generate(prompt, max_new_tokens=6, attention_mask=torch.ones_like(prompt), **settings)
    print(settings, output.tolist())
show(model)
