"""Full fine-tune of a GPT-2 in float32 under bf16 autocast: AdamW, clipping, a schedule, a DataLoader."""

import argparse

import torch
from torch.utils.data import DataLoader, TensorDataset
from transformers import AutoModelForCausalLM, GPT2Config, get_linear_schedule_with_warmup

SIZES = {
    "tiny": {"vocab_size": 512, "n_positions": 128, "n_embd": 64, "n_layer": 2, "n_head": 4},
    "full": {"n_layer": 24, "n_embd": 1024, "n_head": 16},
}
parser = argparse.ArgumentParser()
parser.add_argument("--size", choices=SIZES, default="tiny")
args = parser.parse_args()

torch.manual_seed(0)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
config = GPT2Config(**SIZES[args.size], resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
model = AutoModelForCausalLM.from_config(config).to(device)
length = 64 if args.size == "tiny" else 512
data = TensorDataset(torch.randint(0, config.vocab_size, (24, length)))
loader = DataLoader(data, batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(0))
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.1)
scheduler = get_linear_schedule_with_warmup(optimizer, 2, len(loader))

model.train()
for step, (ids,) in enumerate(loader):
    ids = ids.to(device, non_blocking=True)
    with torch.autocast(device_type=device.type, dtype=torch.bfloat16):
        loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    scheduler.step()
    optimizer.zero_grad(set_to_none=True)
    print(f"step {step}: loss {loss.item():.4f}, norm {norm:.3f}, lr {scheduler.get_last_lr()[0]:.2e}")
