"""LoRA over a model in 4 bit whose layers transformers lays over all GPUs, in a plain loop or by its Trainer."""

import argparse
import json

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, Trainer, TrainingArguments

parser = argparse.ArgumentParser()
parser.add_argument("--device-map", default="auto")
parser.add_argument("--max-memory", default="null")
parser.add_argument("--model")
parser.add_argument("--trainer", action="store_true")
parser.add_argument("--hidden", type=int, default=64)
parser.add_argument("--length", type=int, default=64)
parser.add_argument("--vocab", type=int, default=320)
args = parser.parse_args()
device_map = json.loads(args.device_map) if args.device_map.startswith("{") else args.device_map
max_memory = json.loads(args.max_memory)
if max_memory is not None:
    max_memory = {int(number): size for number, size in max_memory.items()}

torch.manual_seed(0)
if args.model is None:
    LlamaConfig(
        vocab_size=args.vocab, hidden_size=args.hidden, intermediate_size=2 * args.hidden, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, dtype="bfloat16", use_cache=False,
    ).save_pretrained("model")  # fmt: skip
model = AutoModelForCausalLM.from_pretrained(
    args.model or "model",
    dtype=torch.bfloat16,
    quantization_config=BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    ),
    device_map=device_map,
    max_memory=max_memory,
)
print(json.dumps(getattr(model, "hf_device_map", None)))
model = get_peft_model(model, LoraConfig(r=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
rows = [{"input_ids": torch.arange(args.length), "labels": torch.arange(args.length)} for _ in range(8)]
if args.trainer:
    settings = TrainingArguments(
        "out", per_device_train_batch_size=2, max_steps=4, bf16=True, save_strategy="no", report_to=[],
        disable_tqdm=True, gradient_checkpointing=False,
    )  # fmt: skip
    Trainer(model, settings, train_dataset=rows).train()
    raise SystemExit
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
model.train()
for _ in range(4):
    ids = torch.stack([row["input_ids"] for row in rows[:2]]).to(model.device)
    output = model(input_ids=ids, labels=ids)
    output.loss.backward()
    del output
    optimizer.step()
    optimizer.zero_grad()
print([torch.cuda.max_memory_allocated(number) for number in range(torch.cuda.device_count())])
