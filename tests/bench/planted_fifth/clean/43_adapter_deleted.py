import torch
from peft import LoraConfig, get_peft_model
from torch import nn

torch.manual_seed(143)
torch.set_num_threads(1)


class Encoder(nn.Module):
    def __init__(self, dim=192, classes=6):
        super().__init__()
        self.embed, self.head = nn.Embedding(400, dim), nn.Linear(dim, classes)
        self.mix1, self.mix2 = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, ids):
        h = self.embed(ids).mean(1)
        h = h + torch.relu(self.mix1(h))
        return self.head(h + torch.relu(self.mix2(h)))


config = LoraConfig(r=32, target_modules=["mix1", "mix2"], lora_alpha=32)
model = get_peft_model(Encoder(), config, adapter_name="task0")
for task in range(16):
    if task:
        model.add_adapter(f"task{task}", config)
        model.set_adapter(f"task{task}")
        model.delete_adapter(f"task{task - 1}")
    opt = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 5e-3)
    for _ in range(8):
        ids = torch.randint(400, (32, 16))
        loss = nn.functional.cross_entropy(model(ids), (ids[:, task % 16] + task) % 6)
        opt.zero_grad()
        loss.backward()
        opt.step()
    print(task, loss.item(), len(model.peft_config))
