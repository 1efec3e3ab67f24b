from dataclasses import dataclass, field

import torch
from torch import nn

torch.manual_seed(2121)
torch.set_num_threads(1)
V, D, H = 60, 128, 4


@dataclass
class Hypothesis:
    tokens: list
    score: float
    keys: torch.Tensor = field(repr=False, default=None)
    values: torch.Tensor = field(repr=False, default=None)


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(V, D)
        self.q, self.k, self.v = nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, D)
        self.out = nn.Linear(D, V)

    def step(self, token, hyp):
        x = self.emb(torch.tensor([token]))
        split = lambda t: t.view(1, H, 1, D // H)
        k, v = split(self.k(x)), split(self.v(x))
        if hyp.keys is not None:
            k, v = torch.cat([hyp.keys, k], 2), torch.cat([hyp.values, v], 2)
        y = nn.functional.scaled_dot_product_attention(split(self.q(x)), k, v)
        return self.out(y.reshape(1, D)).log_softmax(-1)[0], k, v


@torch.no_grad()
def beam_search(model, first, beams=4, length=24):
    alive = [Hypothesis([first], 0.0)]
    for _ in range(length):
        grown = []
        for hyp in alive:
            logp, k, v = model.step(hyp.tokens[-1], hyp)
            for lp, tok in zip(*logp.topk(2)):
                grown.append(Hypothesis(hyp.tokens + [int(tok)], hyp.score + lp.item(), k, v))
        alive = sorted(grown, key=lambda h: -h.score)[:beams]
    return alive


model = Decoder().eval()
nbest = []
for sentence in range(36):
    hyps = beam_search(model, sentence % V)
    nbest.extend(hyps)
    if sentence % 12 == 0:
        print(sentence, round(hyps[0].score, 3), hyps[0].tokens[:8])
ranked = sorted(nbest, key=lambda h: h.score / len(h.tokens))
print(len(ranked), ranked[-1].tokens[:8])
