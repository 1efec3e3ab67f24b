import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class AverageMeter:
    def __init__(self):
        self.reset()

    def reset(self):
        self.val, self.sum, self.count, self.avg = 0, 0, 0, 0

    def update(self, val, n=1):
        self.val = val
        self.sum = self.sum + val * n
        self.count += n
        self.avg = self.sum / self.count


class SiameseTracker(nn.Module):
    def __init__(self, ch=24):
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, ch, 3, 2, 1), nn.BatchNorm2d(ch), nn.ReLU(), nn.Conv2d(ch, ch, 3, 1, 1)
        )
        self.score = nn.Conv2d(ch, 1, 1)
        self.box = nn.Conv2d(ch, 4, 1)

    def forward(self, template, search):
        z = self.backbone(template).mean(dim=(2, 3), keepdim=True)
        feats = self.backbone(search) * z
        return self.score(feats), self.box(feats).exp()


def dense_iou(pred, target):
    inter_w = torch.min(pred[:, 0], target[:, 0]) + torch.min(pred[:, 2], target[:, 2])
    inter_h = torch.min(pred[:, 1], target[:, 1]) + torch.min(pred[:, 3], target[:, 3])
    inter = inter_w.clamp(min=0) * inter_h.clamp(min=0)
    area_p = (pred[:, 0] + pred[:, 2]) * (pred[:, 1] + pred[:, 3])
    area_t = (target[:, 0] + target[:, 2]) * (target[:, 1] + target[:, 3])
    return inter / (area_p + area_t - inter + 1e-6)


class LTRTrainer:
    def __init__(self, net, lr=1e-3):
        self.net = net.to(device)
        self.optimizer = torch.optim.AdamW(net.parameters(), lr=lr)
        self.stats = {"Loss/total": AverageMeter(), "Loss/box": AverageMeter(), "Stats/IoU": AverageMeter()}

    def _update_stats(self, new_stats, batch_size):
        for name, val in new_stats.items():
            self.stats[name].update(val, batch_size)

    def cycle(self, batch):
        score, boxes = self.net(batch["template"], batch["search"])
        cls_loss = F.binary_cross_entropy_with_logits(score, batch["label"])
        box_loss = F.smooth_l1_loss(boxes, batch["boxes"])
        loss = cls_loss + 0.5 * box_loss
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        iou = dense_iou(boxes, batch["boxes"]).mean()
        stats = {"Loss/total": loss.item(), "Loss/box": box_loss.item(), "Stats/IoU": iou}
        self._update_stats(stats, batch["search"].size(0))

    def train(self, iterations):
        for it in range(iterations):
            self.cycle(make_batch())
            if (it + 1) % 20 == 0:
                print(it + 1, " ".join(f"{k}: {float(m.avg):.4f}" for k, m in self.stats.items()))


def make_batch(n=6):
    return {
        "template": torch.rand(n, 3, 32, 32, device=device),
        "search": torch.rand(n, 3, 96, 96, device=device),
        "label": (torch.rand(n, 1, 48, 48, device=device) > 0.9).float(),
        "boxes": torch.rand(n, 4, 48, 48, device=device) * 2,
    }


if __name__ == "__main__":
    LTRTrainer(SiameseTracker()).train(60)
