# %%
import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1024))
optimizer = torch.optim.Adam(model.parameters())

# %% train, and look at the validation loss now and then
for epoch in range(3):
    model.train()
    for _ in range(5):
        x, y = torch.randn(32, 16), torch.randint(1024, (32,))
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if epoch == 0:
        model.eval()
        with torch.no_grad():
            for _ in range(4):
                val_x, val_y = torch.randn(512, 16), torch.randint(1024, (512,))
                val_logits = model(val_x)  # the mistake
                val_loss = nn.functional.cross_entropy(val_logits, val_y)
        print(epoch, val_loss.item())
