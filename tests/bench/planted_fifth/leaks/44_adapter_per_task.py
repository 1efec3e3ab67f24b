import torch
from peft import LoraConfig, get_peft_model
from torch import nn

torch.manual_seed(44)
torch.set_num_threads(1)


class Encoder(nn.Module):
    def __init__(self, dim=192, classes=6):
        super().__init__()
        self.embed = nn.Embedding(400, dim)
        self.mix1 = nn.Linear(dim, dim)
        self.mix2 = nn.Linear(dim, dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, ids):
        h = self.embed(ids).mean(1)
        h = h + torch.relu(self.mix1(h))
        h = h + torch.relu(self.mix2(h))
        return self.head(h)


def task_batch(seed, n=32):
    ids = torch.randint(400, (n, 16))
    return ids, (ids[:, seed % 16] + seed) % 6


config = LoraConfig(r=32, target_modules=["mix1", "mix2"], lora_alpha=32)
model = get_peft_model(Encoder(), config, adapter_name="task0")
results = {}
for task in range(16):
    name = f"task{task}"
    if task:
        model.add_adapter(name, config)
        model.set_adapter(name)
    trainable = [p for p in model.parameters() if p.requires_grad]
    opt = torch.optim.AdamW(trainable, 5e-3)
    for _ in range(8):
        ids, y = task_batch(task)
        loss = nn.functional.cross_entropy(model(ids), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
    results[name] = loss.item()
    print(name, round(results[name], 3))
