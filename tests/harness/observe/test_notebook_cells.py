"""Notebooks that are run as scripts: what of their cells is Python."""

import json

import pytest

from memory_harness.harness.log.errors import ConfigError
from memory_harness.harness.observe.notebook import cells_of, skipped_lines
from memory_harness.harness.observe.run_script import check_script, run_script


@pytest.fixture
def notebook(tmp_path):
    """Return a function that writes a notebook of these cells of code."""

    def write(*sources):
        cells = [{"cell_type": "code", "source": source.splitlines(True)} for source in sources]
        cells.insert(1, {"cell_type": "markdown", "source": ["# not = code"]})
        path = tmp_path / "train.ipynb"
        path.write_text(json.dumps({"cells": cells}), encoding="utf-8")
        return path

    return write


def test_cells_share_their_names(notebook):
    path = notebook("size = 3", "def double():\n    return 2 * size\nresult = double()")
    assert run_script(str(path), []).result == 6


def test_lines_for_a_shell_and_ipython_are_left_out(notebook):
    path = notebook("!pip install x\n%matplotlib inline\nsteps = 0", "for _ in range(2):\n    !nvidia-smi\nsteps += 1")
    assert run_script(str(path), []).steps == 1
    told = [record.what for record in skipped_lines(str(path))]
    assert told == ["not run: !pip install x", "not run: %matplotlib inline", "not run: !nvidia-smi"]
    assert list(skipped_lines(__file__)) == []


def test_what_a_shell_answers_and_questions_are_left_out(notebook):
    path = notebook("files = !ls\nimport torch\ntorch.nn?\n?torch\nfine = 1")
    assert run_script(str(path), []).fine
    assert len(list(skipped_lines(str(path)))) == 3


def test_lines_of_texts_and_expressions_are_kept(notebook):
    path = notebook('text = """\n!important\nwhy?\n"""\nrest = (7\n% 4)')
    main = run_script(str(path), [])
    assert (main.text, main.rest) == ("\n!important\nwhy?\n", 3)
    assert list(skipped_lines(str(path))) == []


def test_a_timed_cell_runs_and_one_of_another_language_does_not(notebook):
    path = notebook("%%time\ntimed = True", "%%bash\nrm -rf nothing")
    assert run_script(str(path), []).timed
    assert [cell.source for cell in cells_of(path)][1] == ""


def test_an_error_names_cell_and_line(notebook):
    path = notebook("fine = 1", "\n1 / 0")
    with pytest.raises(ZeroDivisionError) as raised:
        run_script(str(path), [])
    last = raised.traceback[-1]
    assert (last.path.name if hasattr(last.path, "name") else str(last.path)).endswith("train.ipynb#cell2")
    assert last.lineno == 1  # counted from 0


@pytest.mark.parametrize("text", ["", "[]", '{"cells": 3}', "\x00"])
def test_what_is_no_notebook_is_refused(tmp_path, text):
    path = tmp_path / "train.ipynb"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"^--watch \S+: not a notebook; give a file that Jupyter opens$"):
        check_script(str(path))
