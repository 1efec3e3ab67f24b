"""Circles of objects that hold tensors: which line closes them, and that looking at them frees them."""

import gc
import weakref

import pytest
import torch

from memory_harness.harness.observe.cycles import collect_and_look, collections_noted


class Card:
    """Takes all tensors for its own."""

    allocated_bytes = 0

    def handle_of(self, tensor):
        return id(tensor)

    def stats(self):
        return self


class View:
    def __init__(self):
        self.values = torch.zeros(2**16)

    def pair(self, other):
        other.twin = self
        self.mate = other


@pytest.fixture(autouse=True)
def nothing_else_waits():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_the_line_that_hands_itself_on_closes_the_circle():
    left, right = View(), View()
    left.pair(right)
    gone = weakref.ref(left)
    del left, right
    found = collect_and_look(Card())
    assert found is not None
    holder, num_bytes = found
    assert holder.source == "other.twin = self"
    assert num_bytes == 2 * 4 * 2**16
    assert gone() is None
    assert gc.garbage == []


def test_a_function_that_names_itself():
    def step():
        kept = torch.zeros(2**16)

        def inner(depth):
            return inner(depth - 1) if depth else kept.sum()

        inner(2)

    step()
    found = collect_and_look(Card())
    assert found is not None
    assert found[0].source == "def inner(depth):"


def test_what_is_freed_at_once_is_no_circle():
    view = View()
    del view
    assert collect_and_look(Card()) is None


def test_only_collections_that_free_memory_are_noted():
    card, noted = Card(), []
    with collections_noted(card, lambda before, after: noted.append((before, after))):
        gc.collect()
        card.allocated_bytes = 2**20
        view = View()
        view.itself = view
        weakref.finalize(view, setattr, card, "allocated_bytes", 0)
        del view
        gc.collect()
    assert noted == [(2**20, 0)]


class Node:
    def __init__(self, parent=None):
        self.values = torch.zeros(2**16)
        self.parent = parent
        self.children, self.visits = {}, 0


def test_the_parent_closes_the_circle_of_a_tree():
    root = Node()
    root.children[0] = Node(root)
    del root
    found = collect_and_look(Card())
    assert found is not None
    assert found[0].source == "self.parent = parent"
