import torch
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

torch.manual_seed(0)
torch.set_num_threads(1)

cfg = ViTConfig(
    image_size=32, patch_size=8, hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=96, num_labels=5
)
model = ViTForImageClassification(cfg)
features = {}


def keep(name):
    def hook(module, inputs, output):
        features.setdefault(name, []).append(output.detach() if torch.is_tensor(output) else output[0].detach())  # LEAK

    return hook


layers = [m for n, m in model.named_modules() if isinstance(m, nn.LayerNorm)]
for i, layer in enumerate(layers):
    layer.register_forward_hook(keep(f"norm{i}"))
print(len(layers), "layers watched")

optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
for step in range(60):
    pixels = torch.randn(8, 3, 32, 32)
    labels = (pixels.mean((1, 2, 3)) * 100).long().clamp(0, 4)
    out = model(pixel_values=pixels, labels=labels)
    optimizer.zero_grad()
    out.loss.backward()
    optimizer.step()
    if step % 20 == 0:
        norms = {k: round(v[-1].norm(dim=-1).mean().item(), 2) for k, v in features.items()}
        print(step, out.loss.item(), norms)
