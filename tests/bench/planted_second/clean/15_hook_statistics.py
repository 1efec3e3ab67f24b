from collections import defaultdict

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)

stats = defaultdict(list)


def watch(name):
    def forward_hook(module, args, output):
        stats[name + ".std"].append(output.detach().std().item())

    def backward_hook(module, grad_input, grad_output):
        stats[name + ".grad"].append(grad_output[0].norm().item())

    return forward_hook, backward_hook


model = nn.Sequential(*[m for _ in range(5) for m in (nn.Linear(96, 96), nn.Tanh())], nn.Linear(96, 10))
for name, module in model.named_children():
    if isinstance(module, nn.Linear):
        f, b = watch(name)
        module.register_forward_hook(f)
        module.register_full_backward_hook(b)

opt = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(150):
    x = torch.randn(48, 96)
    loss = nn.functional.cross_entropy(model(x), x[:, :10].argmax(1))
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 50 == 49:
        print(step, loss.item(), {k: f"{v[-1]:.2e}" for k, v in list(stats.items())[:4]})
print(sum(len(v) for v in stats.values()), "numbers")
