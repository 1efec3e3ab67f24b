import torch
import torch.nn as nn

torch.manual_seed(4)
torch.set_num_threads(1)


class Encoder(nn.Module):
    def __init__(self, d=48):
        super().__init__()
        self.proj = nn.Linear(16, d)
        self.layer = nn.TransformerEncoderLayer(d, 4, 96, batch_first=True, dropout=0.0)
        self.head = nn.Linear(d, 16)

    def forward(self, x):
        return self.head(self.layer(self.proj(x)))


def with_mask(model, mask):
    """Blanks the masked positions after the projection (masked modelling)."""

    def blank(module, inputs, output):
        if output.shape[:2] == mask.shape[:2]:
            return output * mask
        return output

    model.proj.register_forward_hook(blank)
    return model


def batches(n, b=16, length=40):
    for _ in range(n):
        x = torch.randn(b, length, 16)
        keep = (torch.rand(b, length, 1) > 0.15).float().expand(-1, -1, 48).contiguous()
        yield x, keep


def fit():
    model = Encoder()
    opt = torch.optim.Adam(model.parameters(), lr=1e-3)
    for i, (x, keep) in enumerate(batches(80)):
        out = with_mask(model, keep)(x)
        loss = ((out - x) ** 2).mean()
        loss.backward()
        opt.step()
        opt.zero_grad()
        if i % 20 == 0:
            print(i, f"{loss.item():.4f}")
    return model


fit()
