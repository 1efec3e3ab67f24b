import torch
from peft import LoraConfig, get_peft_model
from torch import nn

torch.manual_seed(38)
torch.set_num_threads(1)


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.inp = nn.Linear(64, 256)
        self.hid = nn.Linear(256, 256)
        self.out = nn.Linear(256, 8)

    def forward(self, x):
        return self.out(torch.relu(self.hid(torch.relu(self.inp(x)))))


def lora():
    return LoraConfig(r=12, lora_alpha=12, target_modules=["inp", "hid"], lora_dropout=0.0)


def local_training(model, client, steps=4):
    params = [p for n, p in model.named_parameters() if p.requires_grad]
    opt = torch.optim.SGD(params, lr=0.05)
    g = torch.Generator().manual_seed(client)
    for _ in range(steps):
        x = torch.randn(16, 64, generator=g)
        y = (x[:, :8] + 0.1 * client).argmax(1)
        loss = nn.functional.cross_entropy(model(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
    return loss.item()


model = get_peft_model(Base(), lora(), adapter_name="server")
for rnd in range(8):
    names, losses = [], []
    for client in range(4):
        name = f"r{rnd}c{client}"
        model.add_adapter(name, lora())
        model.set_adapter(name)
        losses.append(local_training(model, client))
        names.append(name)
    with torch.no_grad():
        weights = dict(model.named_parameters())
        for n, p in weights.items():
            if ".server." in n:
                p.copy_(sum(weights[n.replace(".server.", f".{c}.")] for c in names) / len(names))
    model.set_adapter("server")
    print(rnd, [round(l, 3) for l in losses])
