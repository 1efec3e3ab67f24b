"""A Qwen2 in bfloat16 throughout, trained by transformers' Adafactor with its own relative steps."""

import argparse

import torch
from transformers import AutoModelForCausalLM, Qwen2Config
from transformers.optimization import Adafactor

SIZES = {
    "tiny": {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2},
    "full": {"vocab_size": 151936, "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
             "num_attention_heads": 12, "num_key_value_heads": 2, "tie_word_embeddings": True},
}  # fmt: skip
parser = argparse.ArgumentParser()
parser.add_argument("--size", choices=SIZES, default="tiny")
parser.add_argument("--steps", type=int, default=5)
args = parser.parse_args()

torch.manual_seed(0)
device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
config = Qwen2Config(**SIZES[args.size])
with device:
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
model.train()
optimizer = Adafactor(model.parameters(), scale_parameter=True, relative_step=True, warmup_init=True, lr=None)
for step in range(args.steps):
    ids = torch.randint(config.vocab_size, (2, 128 if args.size == "full" else 32), device=device)
    out = model(input_ids=ids, labels=ids)
    out.loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"{step}: {out.loss.item():.3f}")
