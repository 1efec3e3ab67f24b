import torch
from transformers import BertConfig, BertForTokenClassification

torch.set_num_threads(1)
torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"

TAGS = 180
config = BertConfig(
    vocab_size=700,
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=128,
    max_position_embeddings=64,
    num_labels=TAGS,
)
model = BertForTokenClassification(config).to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)


def batches(count, size=16, length=48):
    for _ in range(count):
        ids = torch.randint(700, (size, length), device=device)
        yield ids, ids % TAGS


def evaluate(model, loader):
    model.eval()
    all_logits, all_labels = [], []
    with torch.no_grad():
        for ids, labels in loader:
            logits = model(input_ids=ids).logits
            all_logits.append(logits.cpu())
            all_labels.append(labels.cpu())
    model.train()
    predictions = torch.cat(all_logits).argmax(-1)
    return (predictions == torch.cat(all_labels)).float().mean().item()


for epoch in range(2):
    for ids, labels in batches(20):
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"epoch {epoch} loss {loss.item():.3f} accuracy {evaluate(model, batches(30)):.3f}")
