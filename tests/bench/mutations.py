"""Inputs that are almost right: bytes, JSON and settings with a part replaced, moved, doubled or left out."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

NUMBERS = (0, -1, 1, 2, 255, 2**31, 2**53, 2**63, 2**64, 10**30, -(10**30), 0.5, -0.0, 1e308, 1e-320)
NO_NUMBERS = (float("nan"), float("inf"), float("-inf"))
TEXTS = (
    "", " ", "none", "null", "nan", "inf", "-1", "1e999", "0x10", "9" * 400, "9" * 5000, "True", "auto", "simulated",
    "a\0b", "line\nline", "\x1b[31mred\x1b[0m", "\ud800", "\u202e", "../../etc/passwd", "/dev/zero", "/dev/tty", "~",
    "x" * 300, "x" * 5000, "{}", "[]", "%s%n", "{0.__class__}", "=1+1", "@SUM(A1)", "<script>alert(1)</script>",
    "file.py:12 f", "file.py:" + "9" * 30, ":0", "12 GiB", "1e30 GiB", "৯৯", "q_proj=16", "1x1", "2x1024", "[", "(?P<",
)  # fmt: skip
DEEP = "nested too deeply for Python's own writer"
"""stands for a hundred thousand lists in lists"""
PIECES = (
    b"\0", b"\xff\xfe", b"\n", b"\r", b'"', b"'", b",", b"{", b"}", b"[", b"]", b"=", b":", b"\\", b"#", b"-",
    b"9" * 40,
)  # fmt: skip


def any_value(rng: random.Random, depth: int = 0) -> Any:
    """Return a value of JSON that nobody would write there."""
    kind = rng.randrange(8 if depth < 3 else 5)
    if kind == 0:
        return rng.choice((None, True, False))
    if kind in (1, 2):
        return rng.choice(NUMBERS)
    if kind in (3, 4):
        return rng.choice(TEXTS)
    if kind == 5:
        return [any_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 6:
        return {rng.choice(TEXTS)[:20]: any_value(rng, depth + 1) for _ in range(rng.randrange(3))}
    return nested(rng.choice((40, 400))) if rng.random() < 0.1 else rng.choice(NO_NUMBERS)


def nested(depth: int) -> Any:
    """Return lists in lists."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def mutated(rng: random.Random, value: Any) -> Any:
    """Return a copy of a value of JSON in which one to three places are others."""
    changed = copy.deepcopy(value)
    if rng.random() < 0.002:
        return DEEP
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        holder, key = _place(rng, changed)
        if holder is None:
            return any_value(rng)
        _change(rng, holder, key)
    return changed


def _place(rng: random.Random, value: Any) -> tuple[Any, Any]:
    """Return a container and a key of it; None where the value holds nothing."""
    holder: Any = None
    key: Any = None
    while isinstance(value, (dict, list)) and value:
        holder, key = value, rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        value = value[key]
        if rng.random() < 0.25:
            break
    return holder, key


def _change(rng: random.Random, holder: Any, key: Any) -> None:
    action = rng.randrange(6)
    if action == 0:
        del holder[key]
    elif action == 1 and isinstance(holder, dict):
        holder[rng.choice(TEXTS)[:40]] = holder.pop(key)
    elif action == 2 and isinstance(holder, list):
        holder.insert(key, holder[key])
    elif action == 3 and type(holder[key]) in (int, float):
        holder[key] = rng.choice((-holder[key], holder[key] * 10**9, holder[key] + 1, str(holder[key])))
    else:
        holder[key] = any_value(rng)


def as_json(value: Any) -> bytes:
    """Return JSON as Python writes it, NaN and halves of surrogate pairs included."""
    return b"[" * 100_000 if value == DEEP else json.dumps(value).encode()


def mutated_bytes(rng: random.Random, content: bytes, other: bytes = b"") -> bytes:
    """Return the content with some bytes flipped, cut, put in, doubled, or exchanged for those of another input."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at, end = sorted((rng.randrange(len(changed) + 1), rng.randrange(len(changed) + 1)))
        action = rng.randrange(7)
        if action == 0 and at < len(changed):
            changed[at] = rng.randrange(256)
        elif action == 1:
            del changed[at : at + rng.randrange(20)]
        elif action == 2:
            changed[at:at] = rng.choice(PIECES)
        elif action == 3:
            changed[at:at] = rng.choice(TEXTS).encode("utf-8", "surrogatepass")
        elif action == 4:
            changed[at:at] = changed[at : min(end, at + 200)]
        elif action == 5:
            del changed[end:]
        else:
            begin = rng.randrange(len(other) + 1)
            changed[at : at + 30] = other[begin : begin + 60]
    return bytes(changed)


def mutated_settings(rng: random.Random, text: str) -> bytes:
    """Return TOML or YAML with a value or a key of some lines replaced."""
    lines = text.splitlines()
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(lines))
        name, separator, _ = lines[at].partition("=" if "=" in lines[at] else ":")
        action = rng.randrange(5)
        if action == 0:
            lines.insert(at, rng.choice(lines))
        elif action == 1:
            lines[at] = f"{rng.choice(TEXTS)[:40]}{separator} 1"
        elif action == 2 and len(lines) > 1:
            del lines[at]
        else:
            lines[at] = f"{name}{separator} {_literal(rng)}"
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _literal(rng: random.Random) -> str:
    value = any_value(rng)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (str, list)):
        return json.dumps(value) if rng.random() < 0.99 else "[" * 5000
    return str(value)
