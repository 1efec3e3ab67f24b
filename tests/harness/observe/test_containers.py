"""Containers that live, and who keeps what lies in them."""

import logging
import logging.handlers
import sys

import numpy as np
import pytest
import torch

from memory_harness.harness.observe.containers import live_containers
from memory_harness.harness.observe.holders import find_holder


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
