import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"


class CausalLM(nn.Module):
    def __init__(self, vocab=300, dim=64, length=96):
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)
        self.position = nn.Embedding(length, dim)
        layer = nn.TransformerEncoderLayer(dim, 4, 4 * dim, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(dim, vocab)

    def forward(self, ids):
        length = ids.size(1)
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=ids.device)
        x = self.embed(ids) + self.position(torch.arange(length, device=ids.device))
        return self.head(self.blocks(x, mask=mask, is_causal=True))


model = CausalLM().to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
tokens_per_batch = 384
losses = {}
for length in (16, 32, 48, 64, 96):
    batch_size = tokens_per_batch // length
    for _ in range(10):
        ids = torch.randint(300, (batch_size, length + 1), device=device)
        logits = model(ids[:, :-1])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    losses[length] = round(loss.item(), 3)
print(losses)
