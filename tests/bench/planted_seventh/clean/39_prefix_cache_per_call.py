import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

torch.set_num_threads(1)
torch.manual_seed(47)
device = "cuda" if torch.cuda.is_available() else "cpu"

config = LlamaConfig(
    vocab_size=256,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
)
model = LlamaForCausalLM(config).to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)


@torch.no_grad()
def greedy(prompt, new_tokens=6):
    model.eval()
    cache = DynamicCache(config=model.config)
    ids, tokens = prompt, []
    for _ in range(new_tokens):
        logits = model(ids, past_key_values=cache, use_cache=True).logits[:, -1]
        ids = logits.argmax(-1, keepdim=True)
        tokens.append(ids)
    model.train()
    return torch.cat(tokens, dim=1)


matches = 0
for step in range(40):
    ids = torch.randint(0, 256, (4, 30), device=device)
    loss = model(ids, labels=ids, use_cache=False).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 4 == 3:
        completion = greedy(ids[:2, :24])
        matches += (completion == ids[:2, 24:]).sum().item()
        print(step, round(loss.item(), 4), "exact tokens so far", matches)
