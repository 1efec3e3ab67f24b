import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"


class TooLong(RuntimeError):
    pass


class Encoder(nn.Module):
    def __init__(self, vocab=500, dim=64):
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)
        layer = nn.TransformerEncoderLayer(dim, 4, 128, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(dim, vocab)

    def forward(self, ids, limit):
        x = self.encoder(self.embed(ids))
        if ids.size(1) > limit:
            raise TooLong(f"{ids.size(1)} tokens, at most {limit}")
        return self.head(x)


def attempt(model, ids, limit):
    logits = model(ids, limit)
    return nn.functional.cross_entropy(logits.flatten(0, 1), ids.flatten())


model = Encoder().to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
messages = []
for step in range(50):
    ids = torch.randint(500, (6, 32 if step % 4 else 48), device=device)
    retry = False
    try:
        loss = attempt(model, ids, limit=40)
    except TooLong as error:
        messages.append(f"step {step}: {error}")
        retry = True
    if retry:
        loss = attempt(model, ids[:, :40], limit=40)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(len(messages), messages[-1], round(loss.item(), 3))
