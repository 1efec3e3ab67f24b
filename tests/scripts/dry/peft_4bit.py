"""LoRA over a model in 4 bit in a plain loop; the model is a folder with a configuration, as a download leaves it."""

import argparse
import os
import tempfile

import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, MistralConfig

SIZES = {
    "tiny": {"vocab_size": 1024, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2},
    "full": {"vocab_size": 32768, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
             "num_attention_heads": 32, "num_key_value_heads": 8},
}  # fmt: skip
parser = argparse.ArgumentParser()
parser.add_argument("--size", choices=SIZES, default="tiny")
parser.add_argument("--model", default=os.environ.get("MODEL"))
args = parser.parse_args()

torch.manual_seed(0)
with tempfile.TemporaryDirectory() as folder:
    if args.model is None:
        config = MistralConfig(**SIZES[args.size], architectures=["MistralForCausalLM"], dtype="bfloat16")
        config.save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(
        args.model or folder,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        ),
        device_map="auto",
        attn_implementation="sdpa",
    )
model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=True)
lora = LoraConfig(r=16, lora_alpha=32, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
model = get_peft_model(model, lora)
print(f"{model.get_memory_footprint() / 2**20:.1f} MiB")
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-4, fused=True)
model.train()
for step in range(6):
    length = 48 if args.size == "tiny" else 1024
    ids = torch.randint(3, model.config.vocab_size, (2, length), device=model.device)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    torch.cuda.synchronize()
    print(step, loss.detach().float().cpu().numpy(), torch.cuda.memory_reserved() // 2**20)
