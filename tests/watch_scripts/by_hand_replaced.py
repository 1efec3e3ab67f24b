"""The same as a function of its parameters, which each step replaces; gradients come from `torch.autograd.grad`."""

import torch


def loss_of(parameters, x):
    first, second = parameters
    return torch.tanh(x @ first) @ second


def train(steps):
    torch.manual_seed(0)
    parameters = [(0.1 * torch.randn(*shape)).requires_grad_() for shape in ((64, 128), (128, 64))]
    trace = []
    for _ in range(steps):
        output = loss_of(parameters, torch.randn(512, 64))
        gradients = torch.autograd.grad(output.pow(2).mean(), parameters)
        updated = [p.detach() - 0.1 * g for p, g in zip(parameters, gradients, strict=True)]
        parameters = [tensor.requires_grad_() for tensor in updated]
        trace.append(output.detach())  # the mistake
    return trace


train(30)
