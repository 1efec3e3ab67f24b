"""Bytes as people write them, both ways: what `format_bytes` prints, `parse_bytes` reads."""

from __future__ import annotations

import re
from typing import NamedTuple

KIB, MIB, GIB, TIB = 2**10, 2**20, 2**30, 2**40

_FACTORS = {"B": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": TIB, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
LEAST_WITHOUT_UNIT = MIB
"""a smaller number without a unit is one whose unit was forgotten"""
_BY_LOWER_CASE = {unit.lower(): factor for unit, factor in _FACTORS.items()} | {"": 1}
_PATTERN = re.compile(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*([A-Za-z]*)\s*")


def format_bytes(num_bytes: int) -> str:
    """Return a size with the largest binary unit that keeps it at 1 or more: `8405385216` -> `7.83 GiB`."""
    if num_bytes < 0:
        return "-" + format_bytes(-num_bytes)
    for unit, factor in (("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if round(num_bytes * 1024 / factor, 2) >= 1024:  # the next smaller unit would be printed as 1024.00
            return f"{num_bytes / factor:.2f} {unit}"
    return f"{num_bytes} B"


def format_apart(first: int, second: int) -> tuple[str, str]:
    """Return two sizes as `format_bytes` prints them, or in bytes where that would print different ones alike."""
    texts = format_bytes(first), format_bytes(second)
    if texts[0] == texts[1] and first != second:
        return f"{first} B", f"{second} B"
    return texts


def parse_bytes(text: str) -> int:
    """Return the bytes that a size such as `14.4 GiB`, `512MB` or `1048576` stands for.

    Raises:
        ValueError: a small number without a unit, or not a number followed by one of B, KiB, MiB, GiB, TiB, KB, MB, GB,
            TB (any case).
    """
    match = _PATTERN.fullmatch(text)
    factor = _BY_LOWER_CASE.get(match.group(2).lower()) if match else None
    if match is None or factor is None:
        raise ValueError(f"not a size: {text!r} (write a number and one of {', '.join(_FACTORS)}, such as '14.4 GiB')")
    number = float(match.group(1))
    if not match.group(2) and 0 < number < LEAST_WITHOUT_UNIT:
        raise ValueError(f"{text.strip()!r} has no unit: write '{text.strip()} GiB', or '{text.strip()} B' for bytes")
    return round(number * factor)


def parse_part(text: str, whole_bytes: int) -> int:
    """Return the bytes that a share such as `5 %` of a whole, or a size such as `0.5 GiB`, stands for.

    Raises:
        ValueError: neither, or not less than the whole.
    """
    number, percent = text.strip().removesuffix("%"), text.strip().endswith("%")
    try:
        part = round(whole_bytes * float(number) / 100) if percent else parse_bytes(text)
    except (ValueError, OverflowError):
        raise ValueError(f"not a share or a size: {text!r} (such as '5 %' or '0.5 GiB')") from None
    if not 0 <= part < whole_bytes:
        raise ValueError(f"{text!r} is not less than all of {format_bytes(whole_bytes)}")
    return part


class Increase(NamedTuple):
    """By how much a size may rise: by a share of what it was, or by so many bytes."""

    text: str
    share: float
    num_bytes: int

    def of(self, before_bytes: int) -> int:
        """Return the bytes by which a size may rise from `before_bytes`."""
        # rounded: 115 is not above 100 * 1.15, which is 114.99999999999999
        return self.num_bytes + round(before_bytes * self.share)


def parse_increase(text: str) -> Increase:
    """Return the increase that a share such as `5%`, or a size such as `100 MiB`, stands for.

    Raises:
        ValueError: neither.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", text)
    if match is not None:
        return Increase(text.strip(), float(match.group(1)) / 100, 0)
    try:
        return Increase(text.strip(), 0.0, parse_bytes(text))
    except ValueError:
        raise ValueError("neither a percentage nor a size (allowed: 0% or more, such as 5%, or '100 MiB')") from None
