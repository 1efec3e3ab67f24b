import torch
import torch.nn as nn
import torch.nn.functional as F


class Attack:
    def __init__(self, net, eps=0.05, iters=2):
        self.net, self.eps, self.iters = net, eps, iters

    def __call__(self, x, y):
        adv = x.clone()
        for _ in range(self.iters):
            adv = adv.detach().requires_grad_()
            loss = F.cross_entropy(self.net(adv).float(), y)
            (g,) = torch.autograd.grad(loss, adv)
            adv = (adv + self.eps / self.iters * g.sign()).clamp(0, 1)
        return adv.detach()


def classifier():
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(), nn.Flatten(),
                         nn.Linear(16 * 49, 10))


def robust_accuracy(net, batches, device):
    attack = Attack(net)
    right = seen = 0
    ctx = torch.autocast(device_type=device, dtype=torch.bfloat16)
    with ctx:
        for b in range(batches):
            x = torch.rand(12, 3, 32, 32, device=device)
            y = (x.mean((1, 2, 3)) * 10).long()
            pred = net(attack(x, y)).argmax(1)
            right += (pred == y).sum().item()
            seen += len(y)
            if b % 30 == 0:
                print(b, right / seen)
    return right / seen


if __name__ == "__main__":
    torch.manual_seed(43)
    torch.set_num_threads(1)
    dev = "cuda" if torch.cuda.is_available() else "cpu"
    net = classifier().to(dev).requires_grad_(False)
    print("robust accuracy", robust_accuracy(net, 110, dev))
