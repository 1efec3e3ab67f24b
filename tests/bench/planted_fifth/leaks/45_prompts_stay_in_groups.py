import torch
from torch import nn

torch.manual_seed(45)
torch.set_num_threads(1)
DIM = 96


class Prompted(nn.Module):
    def __init__(self, vocab=150):
        super().__init__()
        self.embed = nn.Embedding(vocab, DIM)
        self.layer = nn.TransformerEncoderLayer(DIM, 4, 128, dropout=0.0, batch_first=True)
        self.head = nn.Linear(DIM, 3)
        for p in self.parameters():
            p.requires_grad_(False)
        self.prompts = nn.ParameterDict()
        self.task = None

    def start(self, task, length=20):
        self.task = task
        self.prompts[task] = nn.Parameter(0.1 * torch.randn(length, DIM))
        return self.prompts[task]

    def forward(self, ids):
        prompt = self.prompts[self.task].expand(len(ids), -1, -1)
        h = self.layer(torch.cat([prompt, self.embed(ids)], 1))
        return self.head(h[:, 0])


model = Prompted()
opt = None
for task in range(30):
    prompt = model.start(f"t{task}")
    if opt is None:
        opt = torch.optim.Adam([prompt], lr=0.02)
    else:
        opt.add_param_group({"params": [prompt]})
    for _ in range(4):
        ids = torch.randint(150, (16, 10))
        loss = nn.functional.cross_entropy(model(ids), (ids[:, 0] + task) % 3)
        opt.zero_grad()
        loss.backward()
        opt.step()
    if task % 6 == 0:
        print(task, loss.item())
