"""A Llama in bfloat16 with gradient checkpointing and bitsandbytes' AdamW in 8 bit, or its paged kin."""

import argparse

import bitsandbytes as bnb
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

SIZES = {
    "tiny": {"vocab_size": 1024, "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2},
    "full": {"vocab_size": 128256, "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28,
             "num_attention_heads": 24, "num_key_value_heads": 8, "tie_word_embeddings": True},
}  # fmt: skip
OPTIMIZERS = {
    "adamw8bit": bnb.optim.AdamW8bit,
    "paged8bit": bnb.optim.PagedAdamW8bit,
    "paged32bit": bnb.optim.PagedAdamW32bit,
    "lion8bit": bnb.optim.Lion8bit,
}
parser = argparse.ArgumentParser()
parser.add_argument("--size", choices=SIZES, default="tiny")
parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adamw8bit")
args = parser.parse_args()

torch.manual_seed(0)
torch.set_default_device("cuda")
config = LlamaConfig(**SIZES[args.size], use_cache=False)
model = AutoModelForCausalLM.from_config(config, torch_dtype=torch.bfloat16)
model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
model.train()
optimizer = OPTIMIZERS[args.optimizer](model.parameters(), lr=1e-4, weight_decay=0.01)
print(f"{torch.cuda.memory_allocated() / 2**20:.1f} MiB of weights")
for step in range(5):
    ids = torch.randint(0, config.vocab_size, (2, 64 if args.size == "tiny" else 2048))
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    print(step, loss.item(), f"{torch.cuda.max_memory_allocated() / 2**20:.1f} MiB at most")
