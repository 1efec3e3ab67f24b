"""What catches an error that a line raises, and whether the loop around it looks for what works."""

from __future__ import annotations

from pathlib import Path

import pytest

from memory_harness.harness.log.handlers import Handler, handlers_around

RAISES = "raises"


def handlers_of(folder: Path, text: str) -> list[Handler]:
    """Return what catches an error of the line that says so."""
    path = folder / "script.py"
    path.write_text(text, encoding="utf-8")
    (line,) = [number for number, row in enumerate(text.splitlines(), 1) if RAISES in row]
    return list(handlers_around(str(path), line))


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("try:\n    raises()\nexcept ValueError:\n    pass\n", [3]),
        ("try:\n    pass\nexcept ValueError:\n    raises()\n", []),
        ("try:\n    raises()\nfinally:\n    pass\n", []),
        ("try:\n    raises()\nexcept ValueError:\n    print()\n    raise\n", []),
        ("try:\n    pass\nexcept ValueError:\n    pass\nelse:\n    raises()\n", []),
        ("try:\n    try:\n        raises()\n    except ValueError:\n        pass\nexcept OSError:\n    pass\n", [4, 6]),
        ("with suppress(ValueError):\n    raises()\n", [1]),
        ("with open('x'):\n    raises()\n", []),
        ("try:\n    def f():\n        raises()\nexcept ValueError:\n    pass\n", []),
        ("def (:  # raises\n", []),
    ],
)
def test_the_handlers_around_a_line(text, lines, tmp_path):
    assert [handler.line for handler in handlers_of(tmp_path, text)] == lines


@pytest.mark.parametrize(
    ("text", "is_search"),
    [
        ("for n in N:\n    try:\n        raises(n)\n        break\n    except E:\n        pass\n", True),
        ("for n in N:\n    try:\n        raises(n)\n    except E:\n        continue\n    break\n", True),
        ("for n in N:\n    try:\n        raises(n)\n    except E:\n        pass\n    break\n", False),
        ("for n in N:\n    try:\n        raises(n)\n    except E:\n        continue\n    step()\n", False),
        ("for n in N:\n try:\n  raises(n)\n  if n:\n   break\n except E:\n  pass\n", False),
        ("def f():\n while True:\n  try:\n   return raises()\n  except E:\n   pass\n", True),
        ("while not done:\n    try:\n        raises()\n        done = True\n    except E:\n        pass\n", True),
        ("while n:\n    try:\n        raises()\n    except E:\n        n -= 1\n", False),
        ("try:\n    raises()\nexcept E:\n    pass\n", False),
    ],
)  # fmt: skip
def test_a_loop_that_success_leaves_is_a_search(text, is_search, tmp_path):
    (handler,) = handlers_of(tmp_path, text)
    assert handler.is_search is is_search


def test_what_is_caught_is_told_by_its_names(tmp_path):
    text = "try:\n    raises()\nexcept (torch.OutOfMemoryError, E):\n    pass\nexcept errors[0]:\n    pass\n"
    (handler,) = handlers_of(tmp_path, text)
    assert handler.classes == (("torch", "OutOfMemoryError"), ("E",), ("",))
    folder = tmp_path / "other"
    folder.mkdir()
    (handler,) = handlers_of(folder, "try:\n    raises()\nexcept:\n    pass\n")
    assert handler.classes == ()
