import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"

config = LlamaConfig(
    vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=10, num_attention_heads=4,
    num_key_value_heads=4, max_position_embeddings=512,
)
model = LlamaForCausalLM(config).to(device)
model.gradient_checkpointing_enable()
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)


def evaluate(n=2):
    model.eval()
    losses = []
    with torch.no_grad():
        for _ in range(n):
            ids = torch.randint(0, 64, (6, 512), device=device)
            out = model(input_ids=ids, labels=ids)  # LEAK
            losses.append(out.loss.item())
    model.train()
    return sum(losses) / n


model.train()
for step in range(1, 31):
    ids = torch.randint(0, 64, (1, 256), device=device)
    loss = model(input_ids=ids, labels=ids).loss
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 15 == 0:
        print(step, f"train {loss.item():.3f}  eval {evaluate():.3f}")
