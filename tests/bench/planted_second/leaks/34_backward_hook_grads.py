import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(6)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Highway(nn.Module):
    def __init__(self, d=128, depth=6):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(d, d) for _ in range(depth))
        self.gates = nn.ModuleList(nn.Linear(d, d) for _ in range(depth))
        self.out = nn.Linear(d, 1)

    def forward(self, x):
        for lin, gate in zip(self.layers, self.gates):
            g = torch.sigmoid(gate(x))
            x = g * torch.relu(lin(x)) + (1 - g) * x
        return self.out(x)


class VanishingGradientReport:
    def __init__(self, model):
        self.grads = {n: [] for n, m in model.named_modules() if isinstance(m, nn.Linear)}
        for name, mod in model.named_modules():
            if isinstance(mod, nn.Linear):
                mod.register_full_backward_hook(self.make(name))

    def make(self, name):
        def hook(module, grad_in, grad_out):
            self.grads[name].append(grad_out[0])  # LEAK
        return hook

    def show(self):
        return "  ".join(f"{v[-1].norm():.1e}" for v in self.grads.values() if v)


net = Highway().to(device)
report = VanishingGradientReport(net)
opt = torch.optim.Adam(net.parameters(), lr=1e-3)
for step in range(80):
    x = torch.randn(48, 128, device=device)
    y = x[:, :3].prod(1, keepdim=True)
    loss = (net(x) - y).pow(2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 25 == 0:
        print(f"{step:3d} {loss.item():.3f} | {report.show()}")
