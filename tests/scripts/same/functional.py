"""torch.func: gradients by function, by sample, and models as functions."""

import torch
from digest import show
from torch.func import functional_call, grad, jacrev, vmap

torch.manual_seed(0)
model = torch.nn.Linear(6, 3)
parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}


def loss_of(values, sample, target):
    return torch.nn.functional.cross_entropy(functional_call(model, values, (sample[None],)), target[None])


for step in range(5):
    samples, targets = torch.randn(8, 6), torch.randint(3, (8,))
    by_sample = vmap(grad(loss_of), in_dims=(None, 0, 0))(parameters, samples, targets)
    parameters = {name: value - 0.1 * by_sample[name].mean(0) for name, value in parameters.items()}
    print(step, {name: value.norm().item() for name, value in parameters.items()})
print(jacrev(lambda x: functional_call(model, parameters, (x,)))(torch.ones(6)).shape)
model.load_state_dict(parameters)
show(model)
