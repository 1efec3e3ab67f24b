"""Characters that a terminal, a page or a spreadsheet would obey: made harmless in every output, in this one place.

A text from elsewhere - a question, a reply, a path, the name of a function - may hold any of them.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_BREAKS = dict.fromkeys(map(ord, "\t\n\x0b\x0c\r\x85\u2028\u2029"), " ")

_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
"""all controls but tab and line feed, other line ends, turns of direction, halves of surrogate pairs, no characters"""

_HALVES = re.compile("[\ud800-\udfff]")

_FORMULA = tuple("=+-@\t\r\n＝＋－＠")
"""how a cell begins that a spreadsheet takes for a formula, in either width"""
_TEXT_FOLLOWS = "'"
"""said first in a cell, it tells a spreadsheet that what follows is text"""


def inert(text: str) -> str:
    """Return a text from elsewhere in one line, without what a terminal would obey."""
    return _CONTROLS.sub("", _ESCAPES.sub("", text)).translate(_BREAKS)


def printable(text: str) -> str:
    """Return a text for people, with a replacement character for each that would be obeyed and not shown."""
    return _UNPRINTABLE.sub("\ufffd", text)


def json_text(content: Any, indent: int = 2) -> str:
    """Return JSON whose strings hold what they held, escaped where it would be obeyed.

    What is no number is null, and half a surrogate pair, which is no text, a replacement character.
    """
    text = json.dumps(_finite(content), ensure_ascii=False, indent=indent, allow_nan=False)
    text = _HALVES.sub("\ufffd", text)
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"


def _finite(value: Any) -> Any:
    """Return the value with null for each number that JSON has no name for, such as the loss of a run that diverged."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def cell_of(value: object) -> object:
    """Return what stands for a value in a table for spreadsheets: a text that none takes for a formula, or the value.

    `text_of` undoes it, but for characters that `printable` replaces.
    """
    if not isinstance(value, str):
        return value
    text = "\r".join(map(printable, value.split("\r")))  # harmless in a cell that is quoted
    return _TEXT_FOLLOWS + text if text.startswith((*_FORMULA, _TEXT_FOLLOWS)) else text


def text_of(cell: str) -> str:
    """Return the text that `cell_of` made a cell of."""
    return cell.removeprefix(_TEXT_FOLLOWS)
