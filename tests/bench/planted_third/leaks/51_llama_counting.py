import torch
from transformers import LlamaConfig, LlamaForCausalLM, get_scheduler

torch.manual_seed(51)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"

settings = dict(
    vocab_size=150,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=8,
    num_key_value_heads=8,
    max_position_embeddings=1024,
)


def build(**extra):
    config = LlamaConfig(**settings)
    config._attn_implementation = extra.pop("attn", "sdpa")
    return LlamaForCausalLM(config).to(device)


def batch(rows=1, length=640):
    start = torch.randint(0, 150, (rows, 1))
    return ((start + torch.arange(length)) % 150).to(device)


model = build(attn="eager")
model.config.use_cache = False
opt = torch.optim.AdamW(model.parameters(), lr=2e-3)
sched = get_scheduler("linear", opt, num_warmup_steps=2, num_training_steps=8)
for step in range(8):
    ids = batch()
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    opt.step()
    sched.step()
    opt.zero_grad()
    print(step, round(loss.item(), 4))
