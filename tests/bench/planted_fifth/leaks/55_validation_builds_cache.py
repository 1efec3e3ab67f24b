import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(55)
torch.set_num_threads(1)
config = LlamaConfig(
    vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=10, num_attention_heads=4,
    num_key_value_heads=4, max_position_embeddings=1024,
)
model = LlamaForCausalLM(config)
opt = torch.optim.SGD(model.parameters(), lr=0.05)


def rows(n, length):
    start = torch.randint(64, (n, 1))
    return (start + torch.arange(length)) % 64


def train_step(ids):
    model.train()
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    opt.zero_grad()
    loss.backward()
    opt.step()
    return loss.item()


@torch.no_grad()
def validation_loss(batches):
    model.eval()
    total = 0.0
    for ids in batches:
        total += model(input_ids=ids, labels=ids).loss.item()
    return total / len(batches)


held_out = [rows(6, 500) for _ in range(3)]
for step in range(48):
    value = train_step(rows(2, 32))
    if step % 16 == 15:
        print(step, value, validation_loss(held_out))
