import torch
from transformers import BertConfig, BertForSequenceClassification

torch.set_num_threads(1)
torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"


class ActivationStats:
    def __init__(self):
        self.latest = {}
        self.running = {}

    def attach(self, name, module):
        def hook(mod, inputs, output):
            value = output.detach()
            self.latest[name] = value
            mean = value.abs().mean().item()
            self.running[name] = 0.9 * self.running.get(name, mean) + 0.1 * mean

        return module.register_forward_hook(hook)


config = BertConfig(
    vocab_size=500,
    hidden_size=64,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=128,
    max_position_embeddings=64,
    num_labels=4,
)
model = BertForSequenceClassification(config).to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
stats = ActivationStats()
for index, layer in enumerate(model.bert.encoder.layer):
    stats.attach(f"layer{index}", layer.output)

for step in range(50):
    ids = torch.randint(500, (8, 32), device=device)
    loss = model(input_ids=ids, labels=ids[:, 0] % 4).loss
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 20 == 0:
        print(step, {k: round(v, 3) for k, v in stats.running.items()})
