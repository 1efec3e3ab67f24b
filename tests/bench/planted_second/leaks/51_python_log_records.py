import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class JsonLogger:
    def __init__(self):
        self.records = []

    def write(self, **fields):
        self.records.append(fields)  # LEAK

    def last(self, key):
        return self.records[-1][key]


def train(steps=120):
    net = nn.Sequential(nn.Linear(100, 256), nn.ReLU(), nn.Linear(256, 400)).to(device)
    opt = torch.optim.Adam(net.parameters(), lr=1e-3)
    logger = JsonLogger()
    for step in range(steps):
        x = torch.randn(48, 100, device=device)
        y = (x[:, 0].sigmoid() * 400).long()
        logits = net(x)
        loss = nn.functional.cross_entropy(logits, y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        logger.write(
            step=step,
            loss=loss.item(),
            probs=logits.softmax(1).tolist(),
            inputs=x.tolist(),
            lr=opt.param_groups[0]["lr"],
        )
        if step % 30 == 0:
            print(step, logger.last("loss"))


train()
