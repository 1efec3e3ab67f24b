import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class GradSampleWrapper(nn.Module):
    """Keeps layer inputs in the forward pass and turns them into per-sample gradient norms in the backward pass."""

    def __init__(self, module):
        super().__init__()
        self.module = module
        for layer in module.modules():
            if isinstance(layer, nn.Linear):
                layer.activations = []
                layer.register_forward_hook(self.capture_activations)
                layer.register_full_backward_hook(self.capture_backprops)

    def forward(self, x):
        return self.module(x)

    @staticmethod
    def capture_activations(layer, inputs, output):
        if layer.training:
            layer.activations.append(inputs[0].detach())

    @staticmethod
    def capture_backprops(layer, grad_input, grad_output):
        a = layer.activations.pop()
        layer.sample_norm = a.pow(2).sum(1).sqrt() * grad_output[0].pow(2).sum(1).sqrt()


def private_step(model, optimizer, max_norm, noise):
    norms = torch.stack([m.sample_norm for m in model.modules() if isinstance(m, nn.Linear)])
    scale = (max_norm / (norms.norm(dim=0).mean() + 1e-6)).clamp(max=1.0)
    for p in model.parameters():
        p.grad.mul_(scale).add_(torch.randn_like(p.grad) * noise * max_norm)
    optimizer.step()


@torch.no_grad()
def accuracy(model, loader):
    hits = total = 0
    for x, y in loader:
        hits += (model(x).argmax(1) == y).sum().item()
        total += y.numel()
    return hits / total


def make_loader(n_batches, batch):
    return [
        (torch.randn(batch, 256, device=device), torch.randint(0, 10, (batch,), device=device))
        for _ in range(n_batches)
    ]


if __name__ == "__main__":
    net = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    model = GradSampleWrapper(net).to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    train_loader, test_loader = make_loader(12, 64), make_loader(4, 128)
    for epoch in range(8):
        for x, y in train_loader:
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            private_step(model, optimizer, max_norm=1.0, noise=1e-3)
        print(f"epoch {epoch} loss {loss.item():.4f} test acc {accuracy(model, test_loader):.3f}")
