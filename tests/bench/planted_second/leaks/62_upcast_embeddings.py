import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)


class Block(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.norm = nn.LayerNorm(d)
        self.up, self.down = nn.Linear(d, 2 * d), nn.Linear(2 * d, d)

    def forward(self, x):
        h = self.norm(x.to(self.norm.weight.dtype)).to(self.up.weight.dtype)
        return x + self.down(nn.functional.silu(self.up(h))).to(x.dtype)


class SmallLM(nn.Module):
    def __init__(self, vocab=30000, d=96):
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab, d)
        self.layers = nn.ModuleList(Block(d) for _ in range(2))
        self.lm_head = nn.Linear(d, vocab, bias=False)

    def forward(self, ids):
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = layer(x)
        return self.lm_head(x.to(self.lm_head.weight.dtype))


def prepare_for_training(model):
    for param in model.parameters():
        param.requires_grad = False
    # cast what is not quantised to fp32
    for name, param in model.named_parameters():
        if param.dtype in (torch.float16, torch.bfloat16) and "layers" not in name or "norm" in name:
            param.data = param.data.to(torch.float32)  # LEAK
    return model


torch.set_default_dtype(torch.bfloat16)
model = SmallLM()
torch.set_default_dtype(torch.float32)
model = prepare_for_training(model)
for layer in model.layers:
    layer.down.weight.requires_grad_(True)
opt = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
for step in range(15):
    ids = torch.randint(0, 30000, (2, 8))
    logits = model(ids)
    loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 5 == 0:
        print(step, loss.item())
