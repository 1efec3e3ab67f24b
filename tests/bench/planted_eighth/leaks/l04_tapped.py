import torch
from torch import nn
from tapkit import build


def main():
    torch.manual_seed(4)
    net = build()
    opt = torch.optim.RMSprop(net.parameters(), 1e-3)
    fn = nn.CrossEntropyLoss()
    xs, ys = torch.randn(512, 1, 24, 24), torch.randint(0, 10, (512,))
    for epoch in range(5):
        seen = 0.0
        for i in range(0, 512, 32):
            out = net(xs[i:i + 32])
            loss = fn(out, ys[i:i + 32])
            opt.zero_grad(set_to_none=True)
            loss.backward()
            opt.step()
            seen += loss.item()
        print(f"epoch {epoch} {seen / 16:.4f}")


if __name__ == "__main__":
    main()
