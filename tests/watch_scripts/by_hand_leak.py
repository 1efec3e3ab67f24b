"""A regression by hand, without a module or an optimizer: every prediction is kept."""

import torch

torch.manual_seed(0)
weights = torch.randn(64, 256, requires_grad=True)
predictions = []
for _ in range(30):
    x = torch.randn(128, 64)
    prediction = x @ weights
    loss = prediction.pow(2).mean()
    loss.backward()
    predictions.append(prediction)  # the mistake
    with torch.no_grad():
        weights -= 0.1 * weights.grad
        weights.grad = None
