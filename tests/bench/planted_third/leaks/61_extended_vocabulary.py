import torch
from torch import nn

torch.manual_seed(61)
torch.set_num_threads(1)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Translator(nn.Module):
    def __init__(self, vocab=9000, dim=96):
        super().__init__()
        self.emb = nn.Embedding(vocab, dim)
        self.enc = nn.GRU(dim, dim, batch_first=True)
        self.dec = nn.GRU(dim, dim, batch_first=True)
        self.out = nn.Linear(dim, vocab, bias=False)

    def forward(self, src, tgt):
        _, h = self.enc(self.emb(src))
        return self.out(self.dec(self.emb(tgt), h)[0])


def extend(model, extra):
    old_in, old_out = model.emb, model.out
    n, dim = old_in.weight.shape
    new_in = nn.Embedding(n + extra, dim)
    new_out = nn.Linear(dim, n + extra, bias=False)
    with torch.no_grad():
        new_in.weight[:n] = old_in.weight
        new_out.weight[:n] = old_out.weight
    model.emb, model.out = new_in, new_out
    return n


base = Translator().requires_grad_(False)
for p in base.dec.parameters():
    p.requires_grad_(True)
first_new = extend(base, 3)
model = base.to(device)
opt = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
for step in range(15):
    src = torch.randint(0, first_new, (2, 20), device=device)
    tgt = src.flip(1)
    tgt[:, 0] = first_new + step % 3
    loss = nn.functional.cross_entropy(model(src, tgt[:, :-1]).transpose(1, 2), tgt[:, 1:])
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 5 == 0:
        print(step, loss.item())
