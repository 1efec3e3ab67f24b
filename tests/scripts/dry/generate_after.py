"""A few steps of training, then generation with a cache: greedy, sampled and by beams."""

import argparse

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

SIZES = {
    "tiny": {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2},
    "full": {"vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
             "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "tie_word_embeddings": True},
}  # fmt: skip
parser = argparse.ArgumentParser()
parser.add_argument("--size", choices=SIZES, default="tiny")
args = parser.parse_args()

torch.manual_seed(0)
config = LlamaConfig(**SIZES[args.size], pad_token_id=0)
model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).to("cuda")
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
model.train()
for _ in range(4):
    ids = torch.randint(3, 500, (2, 48)).to("cuda")
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(loss.item())

model.eval()
prompt = torch.randint(3, 500, (2, 12), device="cuda")
mask = torch.ones_like(prompt)
with torch.inference_mode():
    greedy = model.generate(prompt, attention_mask=mask, max_new_tokens=16, do_sample=False)
    sampled = model.generate(prompt, attention_mask=mask, max_new_tokens=16, do_sample=True, top_p=0.9, temperature=0.7)
    beams = model.generate(prompt, attention_mask=mask, max_new_tokens=6, num_beams=3)
for found in (greedy, sampled, beams):
    print(found.shape, found[0].tolist()[:12])
