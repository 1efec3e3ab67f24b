import torch
from torch import nn
from transformers import DistilBertConfig, DistilBertForSequenceClassification

torch.manual_seed(0)
torch.set_num_threads(1)

model = DistilBertForSequenceClassification(
    DistilBertConfig(vocab_size=100, dim=64, n_layers=4, n_heads=4, hidden_dim=128, max_position_embeddings=32, num_labels=3)
)
model.distilbert.requires_grad_(False)
layers = list(model.distilbert.transformer.layer)
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)

for step in range(90):
    if step in (8, 16, 24, 32):
        layer = layers[-(step // 8)]
        layer.requires_grad_(True)
        optimizer.add_param_group({"params": list(layer.parameters()), "lr": 5e-4})
        print("unfrozen", step // 8, "layers,", sum(p.numel() for p in model.parameters() if p.requires_grad), "parameters")
    ids = torch.randint(1, 100, (8, 24))
    loss = model(input_ids=ids, labels=ids[:, 3] % 3).loss
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 30 == 29:
        print(step, loss.item())
