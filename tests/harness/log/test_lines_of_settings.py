"""Which line of a file gives a setting, registers a hook, opens a context, or stores into an attribute."""

import pytest

from memory_harness.harness.log.source_lines import (
    adding_lines_of_object,
    context_around,
    registering_line,
    setting_line,
    sorting_line,
    storing_line,
)

SCRIPT = """
import torch

class Probe:
    def __init__(self, model, layer):
        y = model.width
        self.model = model
        self.y = y
        layer.register_forward_hook(print)
        layer.register_forward_hook(self.note)

    def note(self, module, inputs, output):
        self.seen[module] = output

config = dict(padding="longest")
collate = make(padding="max_length",
               modules_to_save=["head"])
with torch.autocast("cpu"):
    for step in range(3):
        collate(step)
weight.requires_grad = True
"""


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "script.py"
    file.write_text(SCRIPT, encoding="utf-8")
    return str(file)


def test_the_line_that_gives_a_setting(path):
    assert setting_line(path, "padding", ("max_length",)) == 16
    assert setting_line(path, "modules_to_save") == 17
    assert setting_line(path, "requires_grad", (True,)) == 21
    assert setting_line(path, "use_cache", (True,)) is None


@pytest.mark.parametrize(
    "line", ["order = sorted(rows, key=len)", "rows.sort(key=len)", "order = lengths.argsort()", "np.argsort(lengths)"]
)
def test_the_line_that_sorts_by_a_key(tmp_path, line):
    file = tmp_path / "script.py"
    file.write_text(f"names = sorted(rows)\n{line}\n", encoding="utf-8")
    assert sorting_line(str(file)) == 2


def test_the_line_that_registers_a_hook_names_it(path):
    assert registering_line(path, "note") == 10


def test_the_context_around_a_line(path):
    assert context_around(path, 20, "autocast") == 18
    assert context_around(path, 16, "autocast") is None


def test_an_attribute_is_stored_where_it_is_one(path):
    assert storing_line(path, "y", 4, 13, of_object=True) == 8
    assert storing_line(path, "model", 4, 13, of_object=True) == 7


def test_what_methods_add_to_once_the_object_is_made(path):
    assert adding_lines_of_object(path, 4, 13) == [("seen", 13)]
