"""Which of the lines that add to one name is the one that keeps what another line made."""

import pytest

from memory_harness.harness.log.source_lines import (
    SourceLine,
    adding_line,
    context_around,
    filling_line,
    functions_calling,
    storing_line,
)

SCRIPT = """\
history = []
def log(step, loss, out):
    history.append(loss.item())
    history.append((step, float(loss)))
    history.append(out)
def work(model, x, loss):
    out = model(x)
    log(0, loss, out)
    history.append(
        model(x),
    )
    total = {}
    total["loss"] = loss
    total["out"] = out
"""


@pytest.mark.parametrize(
    ("made_at", "in_tuple", "line"),
    [(7, False, 5), (10, False, 9), (None, None, 4), (7, True, 4)],
    ids=["what it assigns", "where it is made", "no more than numbers last", "in a tuple"],
)
def test_the_line_that_keeps_it_goes_first(tmp_path, made_at, in_tuple, line):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT, encoding="utf-8")
    site = None if made_at is None else SourceLine(str(path), made_at, "work")
    assert adding_line(str(path), "history", 1, 99, (), site, in_tuple) == line


def test_a_line_that_names_the_key_goes_before_others(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT, encoding="utf-8")
    assert adding_line(str(path), "total", 1, 99, {"'out'"}) == 14


def script_of(folder, text):
    path = folder / "script.py"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_line_that_adds_however_much_there_is_goes_before_one_that_asks(tmp_path):
    text = "for row in rows:\n    if len(buffer) < 9:\n        buffer.append(row)\n    buffer.append(row)\n"
    assert adding_line(script_of(tmp_path, text), "buffer", 1, 9) == 4


def test_a_sum_that_is_begun_anew_in_each_turn_adds_up_nothing(tmp_path):
    text = "for x in data:\n    loss = first(x)\n    loss = loss + second(x)\n    total = total + loss\n"
    path = script_of(tmp_path, text)
    assert adding_line(path, "loss", 1, 9) is None
    assert adding_line(path, "total", 1, 9) == 4


def test_a_sum_that_is_only_begun_where_there_is_none_adds_up(tmp_path):
    text = "for x in data:\n    if mean is None:\n        mean = zeros(x)\n    mean = 0.9 * mean + x\n"
    assert adding_line(script_of(tmp_path, text), "mean", 1, 9) == 4


def test_a_number_taken_out_of_a_container_does_not_fill_it(tmp_path):
    text = 'state = load()\nstep = state["step"]\nwhile step < 9:\n    step += 1\n'
    assert filling_line(script_of(tmp_path, text), "state", 1, 9) is None


def test_a_name_that_is_given_nothing_beside_others_is_stored_elsewhere(tmp_path):
    text = "self.last, self.skipped = None, 0\nself.last = error\n"
    assert storing_line(script_of(tmp_path, text), "last", 1, 9, of_object=True) == 2


def test_a_context_that_a_call_enters_is_around_what_follows(tmp_path):
    text = "with ExitStack() as stack:\n    x = 1\n    stack.enter_context(torch.autocast('cuda'))\n    x = 2\n"
    path = script_of(tmp_path, text)
    assert context_around(path, 4, "autocast") == 3
    assert context_around(path, 2, "autocast") is None


def test_methods_that_lead_to_another_are_found(tmp_path):
    text = "class Queue:\n" + "".join(
        f"    def {name}(self, item):\n        self.{called}(item)\n"
        for name, called in (("put", "put_now"), ("put_now", "_put"), ("_put", "append"), ("get", "pop"))
    )
    assert functions_calling(script_of(tmp_path, text), "_put", 1, 99) == ["_put", "put_now", "put"]
