import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"


class RecurrentLM(nn.Module):
    def __init__(self, vocab=400, dim=128):
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)
        self.lstm = nn.LSTM(dim, dim, num_layers=2, batch_first=True)
        self.head = nn.Linear(dim, vocab)

    def forward(self, ids, state=None):
        output, state = self.lstm(self.embed(ids), state)
        return self.head(output), state


def detach(state):
    return tuple(part.detach() for part in state)


corpus = torch.randint(400, (8, 20 * 64 + 1), device=device)
model = RecurrentLM().to(device)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
state = None
for step in range(64):
    window = corpus[:, step * 20 : step * 20 + 21]
    if state is not None:
        state = detach(state)
    logits, state = model(window[:, :-1], state)
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten())
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    optimizer.step()
    if step % 16 == 0:
        print(step, round(loss.item(), 3))
