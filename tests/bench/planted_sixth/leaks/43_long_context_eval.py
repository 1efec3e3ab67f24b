import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.set_num_threads(1)
torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"

VOCAB, LENGTH = 128, 256
config = LlamaConfig(
    vocab_size=VOCAB,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=12,
    num_attention_heads=4,
    num_key_value_heads=4,
    max_position_embeddings=LENGTH,
)
model = LlamaForCausalLM(config).to(device)
model.gradient_checkpointing_enable()
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
heldout = torch.randint(VOCAB, (16, LENGTH), device=device)


@torch.no_grad()
def evaluate(model, data, batch_size=8):
    model.eval()
    total = 0.0
    for ids in data.split(batch_size):
        total += model(input_ids=ids, labels=ids).loss.item() * len(ids)
    model.train()
    return total / len(data)


model.train()
for step in range(1, 21):
    ids = torch.randint(VOCAB, (2, LENGTH), device=device)
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 10 == 0:
        print(f"step {step} train {loss.item():.3f} heldout {evaluate(model, heldout):.3f}")
