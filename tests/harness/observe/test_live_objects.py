"""What is gone through among all living objects: things that are not complete yet are left out."""

import sys

import torch
from torch import nn

from memory_harness.configs.cards import find_card
from memory_harness.configs.units import GIB
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.observe.live_objects import (
    KnownModels,
    holder_of_graph,
    live_modules,
    named_memory,
    saved_by,
    tensors_by_handle,
)
from memory_harness.harness.observe.script_patches import cache_in_frames


def test_parameters_of_lazy_modules_have_no_memory_before_the_first_call():
    device = SimulatedDevice(find_card("t4"), GIB, computes=True, lowered=False)
    model = nn.Sequential(nn.LazyLinear(3))
    known = KnownModels()
    known.note_module(model)
    with device.active():
        assert named_memory(device, known) == {}
        assert all(not nn.parameter.is_lazy(t) for held in tensors_by_handle(device).values() for t in held)


def test_a_copy_that_is_being_made_is_no_model_yet():
    copied = nn.Linear.__new__(nn.Linear)
    whole = nn.Linear(1, 1)
    found = [module for module in live_modules() if module is copied or module is whole]
    assert found == [whole]
    assert isinstance(whole.weight, torch.Tensor)


def test_pairs_of_keys_and_values_that_running_layers_hand_on_are_a_cache():
    def decode(shape):
        cache = [(torch.zeros(shape), torch.zeros(shape)) for _ in range(3)]
        return cache_in_frames(sys._getframe()), len(cache)

    assert decode((1, 2, 8, 4))[0][0] == 3 * 2 * 256
    assert decode((1, 2, 32))[0][0] == 0


def test_of_two_averages_the_one_of_losses_that_no_backward_pass_went_through_keeps_graphs():
    model, average = nn.Linear(8, 8), {"done": 0.0, "waits": 0.0}
    for _ in range(2):
        done, waits = model(torch.ones(4, 8)).exp().mean(), model(torch.ones(4, 8)).exp().mean()
        done.backward()
        average["done"] = 0.9 * average["done"] + done
        average["waits"] = 0.9 * average["waits"] + waits
    del done, waits
    holder = holder_of_graph({name: [value] for name, value in average.items()})
    assert holder is not None
    assert "with key 'waits'" in holder.words


def test_what_a_node_has_saved_is_not_unpacked_by_a_hook():
    x = torch.ones(4, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda saved: saved, lambda saved: 1 / 0):
        packed = x.exp()
    plain = x.exp()
    assert saved_by(packed.grad_fn, "result") is None
    assert saved_by(plain.grad_fn, "result") is not None
    plain.sum().backward()
    assert saved_by(plain.grad_fn, "result") is None


def test_a_list_that_a_node_has_let_go_of_is_saved_no_more():
    class Node:
        @property
        def _raw_saved_weights(self):
            raise RuntimeError("Trying to backward through the graph a second time")

    assert saved_by(Node(), "weights") is None
