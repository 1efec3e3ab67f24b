"""A Llama in float32 under fp16 autocast with a GradScaler, gradients accumulated over two batches of other lengths."""

import argparse

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

SIZES = {
    "tiny": {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2},
    "full": {"vocab_size": 32000, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22,
             "num_attention_heads": 32, "num_key_value_heads": 4},
}  # fmt: skip
parser = argparse.ArgumentParser()
parser.add_argument("--size", choices=SIZES, default="tiny")
args = parser.parse_args()

torch.manual_seed(1)
config = LlamaConfig(**SIZES[args.size])
model = AutoModelForCausalLM.from_config(config).cuda()
model.train()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
scaler = torch.amp.GradScaler("cuda")
longest = 64 if args.size == "tiny" else 1024


def batches(count):
    generator = torch.Generator().manual_seed(2)
    for _ in range(count):
        length = int(torch.randint(longest // 2, longest, (1,), generator=generator))
        ids = torch.randint(0, config.vocab_size, (2, length), generator=generator)
        mask = torch.ones_like(ids)
        mask[1, length - 8 :] = 0
        yield {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


for i, batch in enumerate(batches(12)):
    batch = {k: v.cuda() for k, v in batch.items()}
    with torch.amp.autocast("cuda", dtype=torch.float16):
        loss = model(**batch).loss / 2
    scaler.scale(loss).backward()
    if (i + 1) % 2 == 0:
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        print(f"{i + 1:3d} loss {2 * loss.item():.3f} scale {scaler.get_scale()}")
