import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(3)
torch.set_num_threads(1)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SEQ = 24
VOCAB = 60

corpus = torch.randint(0, VOCAB, (SEQ * 40 + 1, 16))


class CharRNN(nn.Module):
    def __init__(self, width=64):
        super().__init__()
        self.emb = nn.Embedding(VOCAB, 32)
        self.cell = nn.GRUCell(32, width)
        self.out = nn.Linear(width, VOCAB)

    def forward(self, ids, h):
        ys = []
        for t in range(ids.shape[0]):
            h = self.cell(self.emb(ids[t]), h)
            ys.append(self.out(h))
        return torch.stack(ys), h


net = CharRNN().to(DEVICE)
sgd = torch.optim.SGD(net.parameters(), lr=1e-4)
state = torch.zeros(16, 64, device=DEVICE)
# one pass over the text, window after window
for w in range(40):
    x = corpus[w * SEQ : (w + 1) * SEQ].to(DEVICE)
    y = corpus[w * SEQ + 1 : (w + 1) * SEQ + 1].to(DEVICE)
    logits, state = net(x, state)
    loss = F.cross_entropy(logits.flatten(0, 1), y.flatten())
    # only the read-out layer is trained in this phase
    g = torch.autograd.grad(loss, list(net.out.parameters()), retain_graph=True)
    with torch.no_grad():
        for p, d in zip(net.out.parameters(), g):
            p.sub_(0.05 * d)
    if w % 10 == 0:
        print(w, round(loss.item(), 4))
