import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Detector(nn.Module):
    def __init__(self, classes, width=900):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(300, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        return self.head(self.backbone(x))


def load_pretrained(name):
    # stands for a download
    model = Detector(classes=80)
    for p in model.parameters():
        nn.init.normal_(p, std={"coco": 0.02, "lvis": 0.03, "objects": 0.04}[name])
    return model.to(device).eval()


@torch.no_grad()
def spread(model):
    return model(torch.randn(16, 300, device=device)).std().item()


# which of the published backbones suits the data best?
candidates = {name: load_pretrained(name) for name in ("coco", "lvis", "objects")}  # LEAK
best = max(candidates, key=lambda name: spread(candidates[name]))
print("start from", best)

model = Detector(classes=3).to(device)
model.backbone.load_state_dict(candidates[best].backbone.state_dict())

optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, foreach=False)
for step in range(30):
    x = torch.randn(24, 300, device=device)
    loss = nn.functional.cross_entropy(model(x), x[:, :3].argmax(1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 10 == 0:
        print(step, loss.item())
