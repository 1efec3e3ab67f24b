"""A model under torch.compile with a compiled loss, fused AdamW, and TF32."""

import argparse

import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig

SIZES = {
    "tiny": {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2},
    "full": {"vocab_size": 32000, "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 16,
             "num_attention_heads": 16, "num_key_value_heads": 16},
}  # fmt: skip
parser = argparse.ArgumentParser()
parser.add_argument("--size", choices=SIZES, default="tiny")
args = parser.parse_args()

torch.manual_seed(0)
torch.set_float32_matmul_precision("high")
torch.backends.cuda.matmul.allow_tf32 = True
device = torch.device("cuda", 0)
torch.cuda.set_device(device)
config = LlamaConfig(**SIZES[args.size])
model = AutoModelForCausalLM.from_config(config).to(device=device, dtype=torch.bfloat16)
model = torch.compile(model, mode="max-autotune-no-cudagraphs")


@torch.compile(dynamic=True)
def loss_of(logits, ids):
    return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())


optimizer = torch.optim.AdamW(model.parameters(), lr=torch.tensor(3e-4), fused=True, betas=(0.9, 0.95))
start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
for step in range(5):
    start.record()
    ids = torch.randint(0, config.vocab_size, (2, 64), device=device)
    loss = loss_of(model(ids).logits, ids)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    end.record()
    torch.cuda.synchronize()
    print(step, loss.item(), start.elapsed_time(end), "ms")
