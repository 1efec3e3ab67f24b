"""An accelerate loop: accumulation, clipping, bf16, a scheduler, losses gathered, evaluation with metrics gathered."""

import argparse

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, GPTNeoXConfig, get_cosine_schedule_with_warmup

SIZES = {
    "tiny": {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2,
             "num_attention_heads": 4, "max_position_embeddings": 128},
    "full": {"vocab_size": 50304, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
             "num_attention_heads": 8},
}  # fmt: skip
parser = argparse.ArgumentParser()
parser.add_argument("--size", choices=SIZES, default="tiny")
args = parser.parse_args()

set_seed(0)
accelerator = Accelerator(gradient_accumulation_steps=2, mixed_precision="bf16")
config = GPTNeoXConfig(**SIZES[args.size])
model = AutoModelForCausalLM.from_config(config)
longest = 64 if args.size == "tiny" else 512


def collate(lengths):
    width = max(lengths)
    ids = torch.zeros(len(lengths), width, dtype=torch.long)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(1, config.vocab_size, (length,))
    return {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": ids.masked_fill(ids == 0, -100)}


generator = torch.Generator().manual_seed(0)
lengths = torch.randint(8, longest, (24,), generator=generator).tolist()
train = DataLoader(lengths, batch_size=2, shuffle=True, collate_fn=collate, generator=generator)
validation = DataLoader(lengths[:8], batch_size=4, collate_fn=collate)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
scheduler = get_cosine_schedule_with_warmup(optimizer, 1, 6)
model, optimizer, train, validation, scheduler = accelerator.prepare(model, optimizer, train, validation, scheduler)

model.train()
total = torch.zeros((), device=accelerator.device)
for batch in train:
    with accelerator.accumulate(model):
        loss = model(**batch).loss
        total += loss.detach()
        accelerator.backward(loss)
        if accelerator.sync_gradients:
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
accelerator.print("mean loss", total.item() / len(train))

model.eval()
losses = []
for batch in validation:
    with torch.no_grad():
        out = model(**batch)
    losses.append(accelerator.gather_for_metrics(out.loss.repeat(4)))
    guesses = accelerator.gather_for_metrics(out.logits.argmax(-1).flatten())
accelerator.print("validation", torch.cat(losses).mean().item(), guesses.shape)
accelerator.wait_for_everyone()
accelerator.unwrap_model(model).save_pretrained("accelerate-out", save_function=accelerator.save)
