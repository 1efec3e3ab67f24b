import torch
from torch import nn

torch.manual_seed(130)
torch.set_num_threads(1)
V, D = 60, 128


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb, self.cell, self.out = nn.Embedding(V, D), nn.GRUCell(D, D), nn.Linear(D, V)

    def forward(self, token, state):
        state = self.cell(self.emb(token), state)
        return self.out(state).log_softmax(-1), state


def beam_search(model, first, beams=6, length=24):
    tokens, state, score = torch.tensor([[first]]), torch.zeros(1, D), torch.zeros(1)
    with torch.inference_mode():
        for _ in range(length):
            logp, state = model(tokens[:, -1], state)
            total = (score[:, None] + logp).flatten()
            score, flat = total.topk(min(beams, len(total)))
            row, tok = flat // V, flat % V
            tokens, state = torch.cat([tokens[row], tok[:, None]], 1), state[row]
    return [(s, t) for s, t in zip(score.tolist(), tokens.tolist())]


model = Decoder()
opt = torch.optim.Adam(model.parameters(), 2e-3)
nbest = {}
for step in range(40):
    text = (torch.randint(V, (16, 1)) + 3 * torch.arange(13)) % V
    state, loss = torch.zeros(16, D), 0.0
    for t in range(12):
        logp, state = model(text[:, t], state)
        loss = loss + nn.functional.nll_loss(logp, text[:, t + 1])
    opt.zero_grad()
    loss.backward()
    opt.step()
    nbest[step] = beam_search(model, step % V)
print(loss.item() / 12, nbest[39][0][1][:6], len(nbest))
