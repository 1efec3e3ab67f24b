import torch
from torch import nn

torch.manual_seed(17)
torch.set_num_threads(1)


class CAM:
    def __init__(self, model, layer):
        self.model = model
        self.activation = self.gradient = None
        layer.register_forward_hook(self._keep_activation)
        layer.register_full_backward_hook(self._keep_gradient)

    def _keep_activation(self, module, args, out):
        if self.activation is None:
            self.activation = out.detach()

    def _keep_gradient(self, module, grad_in, grad_out):
        if self.gradient is None:
            self.gradient = grad_out[0].detach()

    def __call__(self, x, target):
        score = self.model(x).gather(1, target[:, None]).sum()
        self.model.zero_grad()
        score.backward()
        weight = self.gradient.mean((2, 3), keepdim=True)
        return torch.relu((weight * self.activation).sum(1))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU())
        self.block = nn.Sequential(nn.Conv2d(16, 24, 3, 1, 1), nn.ReLU())
        self.fc = nn.Linear(24, 5)

    def forward(self, x):
        return self.fc(self.block(self.stem(x)).mean((2, 3)))


net = Net()
opt = torch.optim.AdamW(net.parameters(), 2e-3)
for step in range(40):
    y = torch.randint(5, (16,))
    x = torch.randn(16, 1, 32, 32) + y.view(-1, 1, 1, 1) * 0.3
    opt.zero_grad()
    loss = nn.functional.cross_entropy(net(x), y)
    loss.backward()
    opt.step()
    cam = CAM(net, net.block)
    heat = cam(x, y)
    if step % 10 == 0:
        print(step, loss.item(), heat.mean().item())
