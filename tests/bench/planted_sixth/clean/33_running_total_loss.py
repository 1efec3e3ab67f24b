import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.set_num_threads(1)
torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"

config = LlamaConfig(
    vocab_size=300,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    use_cache=False,
)
model = LlamaForCausalLM(config).to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)

accumulation = 4
tr_loss = torch.zeros((), device=device)
history = []
for micro in range(1, 81):
    ids = torch.randint(300, (2, 32), device=device)
    loss = model(input_ids=ids, labels=ids).loss / accumulation
    loss.backward()
    tr_loss = tr_loss + loss.detach()
    if micro % accumulation == 0:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        history.append((tr_loss / micro * accumulation).item())
print([round(x, 3) for x in history[::5]])
