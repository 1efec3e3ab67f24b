import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(21)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64))

    def forward(self, x):
        h = self.body(x)
        spread = h.std()
        if not torch.isfinite(spread):
            raise FloatingPointError("non finite activations")
        return h


def train_step(model, opt, x):
    out = model(x)
    loss = (out - x.flip(1)).abs().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    return loss.item()


model = Model()
opt = torch.optim.Adam(model.parameters(), lr=1e-3)
problems = []
history = []
for step in range(120):
    x = torch.randn(128, 64)
    if step % 3 == 2:
        x[step % 128, 5] = float("inf")
    try:
        history.append(train_step(model, opt, x))
    except FloatingPointError as err:
        problems.append((step, err))  # LEAK
    if step % 40 == 39:
        print(step, "ok", len(history), "skipped", len(problems), "loss", history[-1])
print("skipped steps:", [s for s, _ in problems][:5], "...")
