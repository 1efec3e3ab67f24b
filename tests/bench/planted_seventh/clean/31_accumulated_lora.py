import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

torch.set_num_threads(1)
torch.manual_seed(39)
device = "cuda" if torch.cuda.is_available() else "cpu"

ACCUMULATION = 4
config = LlamaConfig(
    vocab_size=500,
    hidden_size=96,
    intermediate_size=192,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    use_cache=False,
)
model = get_peft_model(
    LlamaForCausalLM(config),
    LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
).to(device)
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=15)

running = torch.zeros((), device=device)
for micro_step in range(60):
    ids = torch.randint(0, 500, (2, 32), device=device)
    loss = model(input_ids=ids, labels=ids).loss / ACCUMULATION
    loss.backward()
    running += loss.detach()
    if (micro_step + 1) % ACCUMULATION == 0:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        if (micro_step + 1) % 20 == 0:
            print(micro_step, f"loss {running.item():.4f} lr {scheduler.get_last_lr()[0]:.2e}")
        running.zero_()
