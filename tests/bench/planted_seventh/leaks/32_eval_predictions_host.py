import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

torch.set_num_threads(1)
torch.manual_seed(10)
device = "cuda" if torch.cuda.is_available() else "cpu"

VOCAB, LENGTH = 2048, 32
config = GPT2Config(vocab_size=VOCAB, n_positions=LENGTH, n_embd=48, n_layer=2, n_head=2, use_cache=False)
model = GPT2LMHeadModel(config).to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
train_ids = torch.randint(0, VOCAB, (96, LENGTH))
eval_ids = torch.randint(0, VOCAB, (80, LENGTH))


def compute_metrics(logits, labels):
    predictions = logits[:, :-1].argmax(-1)
    return {"accuracy": float(np.mean(predictions == labels[:, 1:]))}


def evaluation_loop(batch_size=4):
    model.eval()
    all_logits, all_labels = [], []
    with torch.no_grad():
        for start in range(0, len(eval_ids), batch_size):
            batch = eval_ids[start : start + batch_size].to(device)
            logits = model(batch).logits
            all_logits.append(logits.cpu())
            all_labels.append(batch.cpu())
    model.train()
    return compute_metrics(torch.cat(all_logits).numpy(), torch.cat(all_labels).numpy())


for step in range(36):
    rows = torch.randint(0, len(train_ids), (4,))
    batch = train_ids[rows].to(device)
    loss = model(batch, labels=batch).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 12 == 11:
        print(step, round(loss.item(), 3), evaluation_loop())
