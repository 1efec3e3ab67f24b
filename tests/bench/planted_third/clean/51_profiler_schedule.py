import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, schedule

torch.manual_seed(151)
torch.set_num_threads(1)


def report(prof):
    rows = sorted(prof.key_averages(), key=lambda e: -e.self_cpu_time_total)[:3]
    print("step", prof.step_num, [r.key for r in rows])


class MixerBlock(nn.Module):
    def __init__(self, tokens, dim):
        super().__init__()
        self.a, self.b = nn.Linear(tokens, tokens), nn.Linear(dim, dim)

    def forward(self, x):
        x = x + self.a(x.transpose(1, 2)).transpose(1, 2).relu()
        return x + self.b(x).relu()


def main():
    net = nn.Sequential(nn.Linear(48, 64), *[MixerBlock(16, 64) for _ in range(3)], nn.Flatten(), nn.Linear(1024, 10))
    opt = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    plan = schedule(wait=4, warmup=1, active=2, repeat=1)
    with profile(activities=[ProfilerActivity.CPU], schedule=plan, on_trace_ready=report) as prof:
        for step in range(40):
            x = torch.randn(16, 16, 48)
            loss = nn.functional.cross_entropy(net(x), x[:, 0, :10].argmax(1))
            opt.zero_grad()
            loss.backward()
            opt.step()
            prof.step()
            if step % 20 == 0:
                print(step, loss.item())


main()
