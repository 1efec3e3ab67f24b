"""Containers that live, and who keeps what lies in them."""

import itertools
import logging
import logging.handlers
import sys

import numpy as np
import pytest
import torch

from memory_harness.configs.cards import find_card
from memory_harness.configs.units import GIB, MIB
from memory_harness.harness.devices.card_memory import ReplayedMemory
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.observe import host_containers
from memory_harness.harness.observe.containers import live_containers
from memory_harness.harness.observe.holders import find_holder
from memory_harness.harness.observe.recorder import PhaseRecorder, ResidentMemory
from memory_harness.harness.simulate.memoized import MemoizedMemory
from memory_harness.harness.simulate.memory import SimulatedMemory


class Cache:
    def __init__(self):
        self.arrays = {}
        self.rows = []


def line_of(function):
    """Return the number of the function's second line."""
    return function.__code__.co_firstlineno + 1


@pytest.mark.slow
def test_a_dictionary_of_arrays_that_the_collector_does_not_know_is_found():
    of_object, local = Cache(), {}
    of_object.arrays["first"] = np.zeros(4)
    local["first"] = np.zeros(4)
    found = set(map(id, live_containers()))
    assert id(of_object.arrays) in found
    assert id(local) in found


def fill(cache, row):
    cache.rows.append(row)


def test_the_line_of_another_function_that_fills_an_attribute_is_named():
    cache, tensors = Cache(), [torch.zeros(2), torch.zeros(2)]
    for tensor in tensors:
        fill(cache, tensor)
    holder = find_holder(cache.rows[0], [tensors])
    assert holder is not None
    assert holder.line == line_of(fill)


class Pending:
    def __init__(self):
        self.functions = []

    def add(self, tensor):
        self.functions.append(lambda kept=tensor: kept)


@pytest.mark.slow
def test_what_collects_functions_holds_their_defaults():
    pending = Pending()
    tensors = [torch.zeros(2), torch.zeros(2)]
    for each in tensors:
        pending.add(each)
    holder = find_holder(tensors[0], [tensors])
    assert holder is not None
    assert "`functions` of Pending" in holder.words
    assert holder.line == line_of(Pending.add)


class Teacher:
    def keep(self, model):
        self.__dict__["other"] = model


@pytest.mark.slow
def test_an_attribute_stored_by_its_name_is_found():
    teacher, kept = Teacher(), [torch.zeros(2)]
    teacher.keep(kept[0])
    holder = find_holder(kept[0], [kept])
    assert holder is not None
    assert holder.line == line_of(Teacher.keep)


HANDLER = logging.handlers.MemoryHandler(100, flushLevel=logging.CRITICAL)


def fail():
    made = torch.zeros(2)
    raise ValueError(made.shape)


@pytest.mark.slow
def test_the_line_that_logs_an_exception_is_named():
    log = logging.Logger("test")
    log.addHandler(HANDLER)
    try:
        fail()
    except ValueError:
        log.warning("again", exc_info=True)
    logged_at = sys._getframe().f_lineno - 1
    frame = HANDLER.buffer[0].exc_info[2].tb_next.tb_frame
    holder = find_holder(frame.f_locals["made"])
    HANDLER.buffer.clear()
    assert holder is not None
    assert holder.line == logged_at


@pytest.mark.parametrize("is_replayed", [False, True])
def test_containers_are_looked_at_where_a_users_code_may_run(monkeypatch, is_replayed):
    looks, resident = [], itertools.count(GIB, 8 * MIB)
    monkeypatch.setattr(host_containers, "live_containers", lambda: looks.append("look") or [])
    monkeypatch.setattr(ResidentMemory, "num_bytes", lambda self: next(resident))
    device = SimulatedDevice(find_card("t4"), GIB, computes=True, lowered=False)
    if is_replayed:
        device.memory = ReplayedMemory(MemoizedMemory(SimulatedMemory(GIB)), lambda key, position: "")
    recorder = PhaseRecorder(device, lambda record: None)
    for recorder.step in range(1, 11):
        recorder.end_step([], None, None, 0.0, 0.0)
    assert bool(looks) is not is_replayed
