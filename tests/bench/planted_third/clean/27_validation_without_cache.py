import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(127)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"
config = LlamaConfig(vocab_size=200, hidden_size=96, intermediate_size=128, num_hidden_layers=6, num_attention_heads=4,
                     num_key_value_heads=4, max_position_embeddings=512, use_cache=False)
model = LlamaForCausalLM(config).to(device)
model.gradient_checkpointing_enable()
opt = torch.optim.SGD(model.parameters(), lr=0.05)


def sample(rows, length):
    start = torch.randint(0, 200, (rows, 1))
    return (start + torch.arange(length) * 3).remainder(200).to(device)


def validate(n_batches=2):
    model.eval()
    total = 0.0
    with torch.no_grad():
        for _ in range(n_batches):
            ids = sample(2, 256)
            total += model(input_ids=ids, labels=ids).loss.item()
    model.train()
    return total / n_batches


model.train()
for step in range(1, 11):
    ids = sample(2, 128)
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    opt.step()
    opt.zero_grad()
    if step % 5 == 0:
        print(step, f"train {loss.item():.3f} val {validate():.3f}")
