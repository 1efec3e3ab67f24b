import numpy as np
import torch
from torch import nn

torch.manual_seed(4)
torch.set_num_threads(1)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Tagger(nn.Module):
    def __init__(self, vocab=800, tags=600, d=40):
        super().__init__()
        self.emb = nn.Embedding(vocab, d)
        self.lstm = nn.LSTM(d, d, bidirectional=True, batch_first=True)
        self.fc = nn.Linear(2 * d, tags)

    def forward(self, x):
        return self.fc(self.lstm(self.emb(x))[0])


model = Tagger().to(device)
opt = torch.optim.Adam(model.parameters(), 3e-3)
for step in range(30):
    x = torch.randint(0, 800, (16, 20), device=device)
    loss = nn.functional.cross_entropy(model(x).transpose(1, 2), x % 600)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 10 == 0:
        print("train", step, loss.item())

model.eval()
predictions, gold = [], []
with torch.no_grad():
    for step in range(120):
        x = torch.randint(0, 800, (16, 20), device=device)
        logits = model(x)
        predictions.append(logits.cpu().numpy().copy())  # LEAK
        gold.append((x % 600).cpu().numpy())

predictions, gold = np.concatenate(predictions), np.concatenate(gold)
top5 = np.argpartition(-predictions, 5, axis=-1)[..., :5]
print("top-5 accuracy", (top5 == gold[..., None]).any(-1).mean())
