import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(0)
torch.set_num_threads(1)


class GradCAM:
    def __init__(self, model, layer):
        self.model = model
        self.activations = []
        layer.register_forward_hook(self._save)  # LEAK

    def _save(self, module, args, output):
        self.activations.append(output)

    def __call__(self, image, label):
        logits = self.model(image)
        act = self.activations[-1]
        grad = torch.autograd.grad(logits[:, label].sum(), act)[0]
        weight = grad.mean((2, 3), keepdim=True)
        return F.relu((weight * act).sum(1)).detach()


model = nn.Sequential(
    nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4),
)
opt = torch.optim.Adam(model.parameters(), 1e-3)

for step in range(60):
    x = torch.randn(8, 3, 24, 24)
    y = torch.randint(0, 4, (8,))
    loss = F.cross_entropy(model(x), y)
    opt.zero_grad()
    loss.backward()
    opt.step()

    if step % 6 == 0:
        # look at what the net looks at
        cam = GradCAM(model, model[3])
        heat = cam(x[:1], int(y[0]))
        print(step, round(loss.item(), 3), "heat in", tuple(heat.shape), round(heat.max().item(), 4))
