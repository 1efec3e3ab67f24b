import json

import torch
from torch import nn

torch.manual_seed(122)
torch.set_num_threads(1)


class Scorer(nn.Module):
    def __init__(self, items=120):
        super().__init__()
        self.user, self.item = nn.Embedding(300, 24), nn.Linear(24, items)

    def forward(self, users):
        return self.item(self.user(users))


model = Scorer()
opt = torch.optim.Adagrad(model.parameters(), 0.05)
with open("predictions.jsonl", "w", encoding="utf-8") as file:
    for step in range(90):
        users = torch.randint(300, (64,))
        target = users % 120
        scores = model(users)
        loss = nn.functional.cross_entropy(scores, target)
        opt.zero_grad()
        loss.backward()
        opt.step()
        for row, best in enumerate(scores.softmax(1).argmax(1).tolist()):
            file.write(json.dumps({"step": step, "row": row, "best": best}) + "\n")
        if step % 30 == 29:
            print(step, loss.item())
