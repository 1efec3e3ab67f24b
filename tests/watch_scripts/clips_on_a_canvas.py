"""Every clip lies on a canvas as long as the longest could be; a mask tells how much of it is clip."""

import torch
from torch import nn

torch.manual_seed(0)
CANVAS = 600


class Classifier(nn.Module):
    def __init__(self, width=96):
        super().__init__()
        self.first = nn.Linear(32, width)
        self.last = nn.Linear(width, 4)

    def forward(self, frames, mask):
        hidden = self.first(frames).relu() * mask[..., None]
        return self.last(hidden.sum(1) / mask.sum(1, keepdim=True))


def on_canvas(clips):
    frames = torch.zeros(len(clips), CANVAS, 32)  # the mistake
    mask = torch.zeros(len(clips), CANVAS)
    for row, clip in enumerate(clips):
        frames[row, : len(clip)] = clip
        mask[row, : len(clip)] = 1
    return frames, mask


model = Classifier()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(4):
    clips = [torch.randn(int(length), 32) for length in torch.randint(40, 90, (8,))]
    model(*on_canvas(clips)).mean().backward()
    optimizer.step()
    optimizer.zero_grad()
