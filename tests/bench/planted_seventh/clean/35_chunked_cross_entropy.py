import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint
from transformers import LlamaConfig, LlamaModel

torch.set_num_threads(1)
torch.manual_seed(43)
device = "cuda" if torch.cuda.is_available() else "cpu"

VOCAB, LENGTH, BATCH, CHUNK = 6000, 40, 2, 20

config = LlamaConfig(
    vocab_size=VOCAB,
    hidden_size=48,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    use_cache=False,
)
backbone = LlamaModel(config).to(device)
head = torch.nn.Linear(48, VOCAB, bias=False).to(device)
optimizer = torch.optim.AdamW([*backbone.parameters(), *head.parameters()], lr=5e-4)


def chunk_loss(hidden, targets):
    return F.cross_entropy(head(hidden).float(), targets, reduction="sum")


def chunked_loss(hidden, targets):
    total = hidden.new_zeros(())
    for h, t in zip(hidden.split(CHUNK), targets.split(CHUNK)):
        total = total + checkpoint(chunk_loss, h, t, use_reentrant=False)
    return total / targets.numel()


for step in range(24):
    ids = torch.randint(0, VOCAB, (BATCH, LENGTH + 1), device=device)
    hidden = backbone(ids[:, :-1]).last_hidden_state.flatten(0, 1)
    loss = chunked_loss(hidden, ids[:, 1:].flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 8 == 7:
        print(step, round(loss.item(), 4))
