"""Bytes, printed and read back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_harness.configs.units import GIB, KIB, MIB, TIB, format_bytes, parse_bytes


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (KIB, "1.00 KiB"),
        (8405385216, "7.83 GiB"),
        (-MIB, "-1.00 MiB"),
        (3 * TIB, "3.00 TiB"),
    ],
)
def test_a_size_is_printed_in_the_largest_unit_that_fits(num_bytes, text):
    assert format_bytes(num_bytes) == text


@given(st.integers(0, 2**52))
def test_what_is_printed_is_read_back_within_the_printed_precision(num_bytes):
    text = format_bytes(num_bytes)
    half_a_digit = 0.005 * {"B": 0, "KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": TIB}[text.split()[1]]
    assert abs(parse_bytes(text) - num_bytes) <= half_a_digit + 1
    assert format_bytes(parse_bytes(text)) in (text, format_bytes(num_bytes))


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [("512MB", 512 * 10**6), (" 1.5 gib ", 3 * GIB // 2), ("1048576", MIB), (".5 KiB", 512), ("2 B", 2)],
)
def test_sizes_are_read_in_any_case_and_spacing(text, num_bytes):
    assert parse_bytes(text) == num_bytes


@pytest.mark.parametrize("text", ["", "GiB", "-1 GiB", "1,5 GiB", "1 GiB 2", "1 gigabyte", "1e9", "nan"])
def test_what_is_no_size_is_refused_with_the_units(text):
    with pytest.raises(ValueError, match=r"not a size: .* one of B, KiB"):
        parse_bytes(text)
