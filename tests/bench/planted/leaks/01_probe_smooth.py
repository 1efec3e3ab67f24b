import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(0)

N_STEPS = 120
model = nn.Sequential(
    nn.Linear(32, 256),
    nn.ReLU(),
    nn.Linear(256, 256),
    nn.ReLU(),
    nn.Linear(256, 4),
)
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

probe_x = torch.randn(64, 32)
probe_y = torch.randint(0, 4, (64,))

probe_total = 0.0
for step in range(N_STEPS):
    x = torch.randn(48, 32)
    y = (x[:, :4].argmax(1)).long()

    optimizer.zero_grad()
    loss = criterion(model(x), y)
    loss.backward()
    optimizer.step()

    # small fixed probe set, to see how noisy the training loss is
    probe_total = probe_total + criterion(model(probe_x), probe_y)  # LEAK
    if (step + 1) % 30 == 0:
        print(f"step {step + 1}: train {loss.item():.4f} probe avg {float(probe_total) / (step + 1):.4f}")
