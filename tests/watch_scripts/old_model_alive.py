# In[1]:
import torch
from torch import nn

torch.manual_seed(0)


def make(width):
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 64))


def train(model, steps=8):
    optimizer = torch.optim.Adam(model.parameters())
    for _ in range(steps):
        x = torch.randn(8, 64)
        loss = (model(x) - x).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


# In[2]:
models = []
for width in (512, 768, 1024, 1280):
    model = make(width)
    models.append(model)  # the mistake
    print(width, train(model))
