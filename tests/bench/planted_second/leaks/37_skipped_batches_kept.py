import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class BadBatch(RuntimeError):
    pass


def training_step(model, batch, criterion):
    x, y = batch
    hidden = model[0](x)
    out = model[1:](hidden)
    loss = criterion(out, y)
    if y.max() > 8.5:
        raise BadBatch(f"label out of range: {y.max().item():.1f}")
    return loss


def main():
    model = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 1)).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    criterion = nn.MSELoss()
    skipped = []

    for step in range(140):
        x = torch.randn(64, 256, device=device)
        y = x[:, :1] * 2 + 1
        if step % 3 == 0:
            y[0] = 9.0  # a broken annotation
        optimizer.zero_grad()
        try:
            loss = training_step(model, (x, y), criterion)
            loss.backward()
        except BadBatch as err:
            skipped.append((step, err))  # LEAK
            continue
        optimizer.step()
        if step % 35 == 1:
            print(step, loss.item(), "skipped", len(skipped))

    print("skipped:", [(s, str(e)) for s, e in skipped[:2]], "...")


main()
