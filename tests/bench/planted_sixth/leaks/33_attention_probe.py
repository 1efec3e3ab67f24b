import torch
from transformers import BertConfig, BertForSequenceClassification

torch.set_num_threads(1)
torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"


class LayerProbe:
    def __init__(self, model, layers):
        self.captured = {}
        self.handles = []
        for index in layers:
            block = model.bert.encoder.layer[index]
            self.handles.append(block.output.register_forward_hook(self.make_hook(index)))

    def make_hook(self, index):
        def hook(module, inputs, output):
            self.captured.setdefault(index, []).append(output.detach())

        return hook

    def norms(self):
        return {i: round(acts[-1].norm(dim=-1).mean().item(), 2) for i, acts in self.captured.items()}


config = BertConfig(
    vocab_size=600,
    hidden_size=96,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=192,
    max_position_embeddings=64,
    num_labels=3,
)
model = BertForSequenceClassification(config).to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4)
probe = LayerProbe(model, layers=[0, 2])

ids = torch.randint(600, (320, 40), device=device)
labels = torch.randint(3, (320,), device=device)
for step in range(60):
    pick = torch.randint(320, (8,), device=device)
    loss = model(input_ids=ids[pick], labels=labels[pick]).loss
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 20 == 0:
        print(step, round(loss.item(), 3), probe.norms())
