import torch
from transformers import DistilBertConfig, DistilBertModel

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"

config = DistilBertConfig(vocab_size=400, dim=96, n_layers=4, n_heads=4, hidden_dim=192, max_position_embeddings=48)
encoder = DistilBertModel(config).to(device).eval()
probe = torch.nn.Linear(96, 3).to(device)
opt = torch.optim.Adam(probe.parameters(), lr=1e-2)

# 1. run the frozen encoder over the corpus
outputs_per_batch, labels = [], []
with torch.inference_mode():
    for i in range(70):
        ids = torch.randint(0, 400, (8, 40), device=device)
        out = encoder(input_ids=ids, output_hidden_states=True)
        outputs_per_batch.append(out)  # LEAK
        labels.append((ids[:, 1] % 3))
        if i % 20 == 0:
            print("encoded", (i + 1) * 8)

# 2. a linear probe on the first token of the last layer
feats = torch.cat([o.last_hidden_state[:, 0] for o in outputs_per_batch]).clone()
target = torch.cat(labels).clone()
feats = feats.detach().clone()
for epoch in range(10):
    loss = torch.nn.functional.cross_entropy(probe(feats), target)
    opt.zero_grad()
    loss.backward()
    opt.step()
print("probe loss", loss.item())
