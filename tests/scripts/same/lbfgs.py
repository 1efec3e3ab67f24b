"""An optimizer that is handed a closure, and calls it as often as it likes."""

import torch
from digest import show

torch.manual_seed(0)
model = torch.nn.Linear(5, 1)
optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4, history_size=3, line_search_fn="strong_wolfe")
inputs, targets = torch.randn(32, 5), torch.randn(32, 1)
calls = 0


def closure():
    global calls
    calls += 1
    optimizer.zero_grad()
    loss = torch.nn.functional.mse_loss(model(inputs), targets)
    loss.backward()
    return loss


for step in range(6):
    print(step, optimizer.step(closure).item(), calls)
show(model)
