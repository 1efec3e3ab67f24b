"""Values as people write them, in a flag or in TOML, into the type of a field, and back."""

from __future__ import annotations

import types
import typing
from dataclasses import Field
from pathlib import Path
from typing import Any, Literal

from memory_harness.configs.units import format_bytes, parse_bytes

NONE = "none"
"""Written for "not set" in a flag and in TOML, which has no null."""

MAX_WHOLE = 2**63


def from_text(text: str, hint: Any, field: Field[Any]) -> Any:
    """Return the value of type `hint` that a flag's text stands for. Raises ValueError: the text is no such value."""
    kind, optional = without_none(hint)
    _check_text(text)
    if optional and text.lower() == NONE:
        return None
    if is_size(field):
        return parse_bytes(text)
    if typing.get_origin(kind) is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            raise ValueError(f"{text!r} is not {_described(kind, optional)}") from None
        return _checked_number(number)
    return Path(text) if kind is Path else _checked(text, kind, optional)


def from_toml(value: Any, hint: Any, field: Field[Any]) -> Any:
    """Return the value of type `hint` that a TOML value stands for. Raises ValueError: the value is of another type."""
    kind, optional = without_none(hint)
    if optional and value == NONE:
        return None
    if is_size(field) and isinstance(value, str):
        return parse_bytes(value)
    if type(value) is int:
        _checked_number(value)
    if kind is float and type(value) is int:
        return float(value)
    if typing.get_origin(kind) is tuple and isinstance(value, list) and all(isinstance(part, str) for part in value):
        for part in value:
            _check_text(part)
        return tuple(value)
    return _checked(value, kind, optional)


def _checked_number(number: float) -> float:
    """Return the number. Raises ValueError where it is a whole one of more digits than anything here counts."""
    if isinstance(number, int) and abs(number) >= MAX_WHOLE:
        raise ValueError(f"a whole number of more than {len(str(MAX_WHOLE))} digits")
    return number


def _check_text(text: str) -> None:
    """Raise ValueError where no system takes the text for a path, and no library for a text."""
    if "\0" in text:
        raise ValueError(f"{text!r} holds a NUL character")


def to_text(value: Any, field: Field[Any]) -> str:
    """Return a value as `from_text` reads it; booleans, which have flags of their own, as yes and no."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ",".join(value)
    if is_size(field) and parse_bytes(format_bytes(value)) == value:
        return format_bytes(value)
    return str(value)


def is_size(field: Field[Any]) -> bool:
    """Return whether the field holds bytes, which people write with a unit."""
    return field.metadata.get("unit") == "bytes"


def without_none(hint: Any) -> tuple[Any, bool]:
    """Return the type without `| None`, and whether it had that."""
    if not isinstance(hint, types.UnionType):
        return hint, False
    (kind,) = set(typing.get_args(hint)) - {type(None)}
    return kind, True


def _checked(value: Any, kind: Any, optional: bool) -> Any:
    if isinstance(value, str):
        _check_text(value)
    fits = value in typing.get_args(kind) if typing.get_origin(kind) is Literal else type(value) is kind
    if not fits:
        raise ValueError(f"{value!r} is not {_described(kind, optional)}")
    return value


def _described(kind: Any, optional: bool) -> str:
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(typing.get_args(kind))
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    name = names.get(kind, "a list of texts")
    return f"{name} or {NONE}" if optional else name
