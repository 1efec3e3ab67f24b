"""Manual SGD with a Hutchinson estimate of the trace of the Hessian printed now and then."""
import torch
import torch.nn.functional as F

torch.manual_seed(0)
torch.set_num_threads(1)

sizes = [32, 128, 128, 10]
params = []
for a, b in zip(sizes[:-1], sizes[1:]):
    params.append((torch.randn(b, a) / a**0.5).requires_grad_())
    params.append(torch.zeros(b, requires_grad=True))


def net(x):
    for i in range(0, len(params), 2):
        x = F.linear(x, params[i], params[i + 1])
        if i < len(params) - 2:
            x = torch.tanh(x)
    return x


def hessian_trace(grads):
    vs = [torch.randint(0, 2, g.shape).float() * 2 - 1 for g in grads]
    hv = torch.autograd.grad(grads, params, vs, retain_graph=True)
    return sum((h * v).sum() for h, v in zip(hv, vs)).item()


lr = 0.05
for step in range(70):
    x = torch.randn(64, 32)
    y = x[:, :10].argmax(1)
    loss = F.cross_entropy(net(x), y)
    loss.backward(create_graph=True)  # LEAK
    if step == 0:
        print("trace(H) at init:", hessian_trace([p.grad for p in params]))
    with torch.no_grad():
        for p in params:
            p.data -= lr * p.grad.data
            p.grad.data.zero_()
    if step % 20 == 0:
        print(step, loss.item())
