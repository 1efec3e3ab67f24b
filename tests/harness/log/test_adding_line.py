"""Which of the lines that add to one name is the one that keeps what another line made."""

import pytest

from memory_harness.harness.log.source_lines import SourceLine, adding_line

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
