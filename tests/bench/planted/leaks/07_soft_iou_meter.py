import torch
import torch.nn as nn
import torch.nn.functional as F


class AverageMeter(object):
    """Computes and stores the average and current value"""

    def __init__(self):
        self.reset()

    def reset(self):
        self.val, self.sum, self.count = 0, 0, 0

    def update(self, val, n=1):
        self.val = val
        self.sum += val * n  # LEAK
        self.count += n

    @property
    def avg(self):
        return self.sum / max(self.count, 1)


def block(i, o):
    return nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(inplace=True))


class SegNet(nn.Module):
    def __init__(self, w=12):
        super().__init__()
        self.enc = nn.Sequential(block(3, w), block(w, w))
        self.head = nn.Conv2d(w, 1, 1)

    def forward(self, x):
        return self.head(self.enc(x))


def soft_iou(logits, mask):
    p = torch.sigmoid(logits)
    inter = (p * mask).sum((1, 2, 3))
    union = (p + mask - p * mask).sum((1, 2, 3))
    return (inter / (union + 1e-6)).mean()


def main():
    torch.set_num_threads(1)
    torch.manual_seed(5)
    net = SegNet()
    opt = torch.optim.RMSprop(net.parameters(), lr=1e-3)
    loss_m, iou_m = AverageMeter(), AverageMeter()
    for it in range(70):
        img = torch.rand(4, 3, 32, 32)
        mask = (img.mean(1, keepdim=True) > 0.5).float()
        out = net(img)
        loss = F.binary_cross_entropy_with_logits(out, mask)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
        loss_m.update(loss.item(), img.size(0))
        iou_m.update(soft_iou(out, mask), img.size(0))
        if it % 20 == 19:
            print("it %d loss %.3f iou %.3f" % (it, loss_m.avg, float(iou_m.avg)))


main()
