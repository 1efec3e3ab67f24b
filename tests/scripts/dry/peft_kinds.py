"""A plain loop over a model with adapters of several kinds: DoRA, rank-stabilised, with whole modules trained too."""

import argparse

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Qwen2Config

SIZES = {
    "tiny": {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2},
    "full": {"vocab_size": 151936, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
             "num_attention_heads": 28, "num_key_value_heads": 4},
}  # fmt: skip
KINDS = {
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True, "lora_dropout": 0.1},
    "modules": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "olora": {"init_lora_weights": "olora"},
}
parser = argparse.ArgumentParser()
parser.add_argument("--size", choices=SIZES, default="tiny")
parser.add_argument("--kind", choices=KINDS, default="dora")
args = parser.parse_args()

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
config = Qwen2Config(**SIZES[args.size])
model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).to(device)
model = get_peft_model(
    model, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM", **KINDS[args.kind])
)
trainable = [p for p in model.parameters() if p.requires_grad]
print(sum(p.numel() for p in trainable), {p.dtype for p in trainable}, trainable[0].device)
assert all(p.device.type == device for p in model.parameters())
optimizer = torch.optim.AdamW(trainable, lr=2e-4)
model.train()
for step in range(5):
    ids = torch.randint(config.vocab_size, (2, 40 if args.size == "tiny" else 512)).to(device)
    loss = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(step, float(loss))
