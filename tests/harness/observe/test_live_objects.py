"""What is gone through among all living objects: things that are not complete yet are left out."""

import sys

import torch
from torch import nn

from memory_harness.configs.cards import find_card
from memory_harness.configs.units import GIB
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.observe.live_objects import KnownModels, live_modules, named_memory, tensors_by_handle
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
