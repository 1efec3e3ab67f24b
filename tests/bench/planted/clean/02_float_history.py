import statistics
import torch
import torch.nn as nn


class History(dict):
    def log(self, **values):
        for k, v in values.items():
            self.setdefault(k, []).append(v)

    def mean(self, k, last=20):
        return statistics.fmean(self[k][-last:])


def main():
    torch.set_num_threads(1)
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.Conv2d(16, 16, 3, 2), nn.ReLU(),
                        nn.Flatten(), nn.LazyLinear(10))
    net(torch.zeros(1, 3, 32, 32))
    opt = torch.optim.Adam(net.parameters())
    hist = History()
    for step in range(80):
        x = torch.rand(8, 3, 32, 32)
        y = (x.mean((1, 2, 3)) * 100).long() % 10
        out = net(x)
        loss = nn.functional.cross_entropy(out, y)
        opt.zero_grad()
        loss.backward()
        gn = nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        opt.step()
        hist.log(loss=loss.item(), grad=gn.item(), acc=(out.argmax(1) == y).float().mean().item(), step=step)
        if step % 20 == 19:
            print(step, hist.mean("loss"), hist.mean("acc"), hist.mean("grad"))


main()
