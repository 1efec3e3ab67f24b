import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"

x = torch.randn(480, 30)
dataset = TensorDataset(x, (x.sum(1) > 0).long())
loader = DataLoader(dataset, batch_size=16, shuffle=True)
model = nn.Sequential(nn.Linear(30, 100), nn.Tanh(), nn.Linear(100, 2)).to(device)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
criterion = nn.CrossEntropyLoss()

for epoch in range(5):
    # stays on the device: one synchronisation per epoch instead of one per step
    running_loss = torch.zeros((), device=device)
    running_corrects = torch.zeros((), device=device)
    losses = []
    for inputs, labels in loader:
        inputs, labels = inputs.to(device), labels.to(device)
        optimizer.zero_grad()
        outputs = model(inputs)
        loss = criterion(outputs, labels)
        loss.backward()
        optimizer.step()
        running_loss += loss.detach() * inputs.size(0)
        running_corrects += (outputs.argmax(1) == labels).sum()
        losses.append(loss.detach())
    spread = torch.stack(losses).std().item()
    n = len(dataset)
    print(f"epoch {epoch} loss {running_loss.item() / n:.4f} +- {spread:.4f} acc {running_corrects.item() / n:.4f}")
