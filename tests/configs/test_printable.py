"""Texts from elsewhere: no output obeys them, and what was changed for it can be undone."""

import json

from hypothesis import given
from hypothesis import strategies as st

from memory_harness.configs.printable import cell_of, inert, json_text, printable, text_of

BEGINS = st.sampled_from(["", "=", "+", "-", "@", "\t", "\r", "\n", "＝", "'", "''", "\x1b]0;x\x07"])
TEXTS = st.builds(str.__add__, BEGINS, st.text())
OBEYED = {
    chr(code) for code in (*range(0x20), 0x7F, *range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}


@given(TEXTS)
def test_a_cell_is_no_formula_and_can_be_undone(text):
    cell = cell_of(text)
    assert not str(cell).startswith(tuple("=+-@\t\r\n＝＋－＠"))
    assert not (OBEYED - set("\t\r\n")) & set(str(cell))
    assert text_of(str(cell)) == "\r".join(printable(part) for part in text.split("\r"))


@given(TEXTS)
def test_two_texts_never_become_one_cell(text):
    assert cell_of(text) != cell_of(f"'{text}")


@given(TEXTS)
def test_what_is_printed_holds_nothing_that_is_obeyed(text):
    assert not (OBEYED - set("\t\n")) & set(printable(text))
    assert len(printable(text)) == len(text)
    assert not OBEYED & set(inert(text))


def test_words_of_any_script_stay_as_they_are():
    for text in ("ক্ষ\u200dদ র\u200cয", "עברית \u200f", "😀👩\u200d💻", "a\tb\nc"):
        assert printable(text) == text


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=8,
)


@given(VALUES)
def test_json_holds_what_it_held_and_shows_nothing_that_is_obeyed(value):
    text = json_text(value)
    assert json.loads(text) == value
    assert not (OBEYED - {"\n"}) & set(text)
    text.encode()


def test_what_is_no_number_is_null():
    assert json.loads(json_text({"loss": float("nan"), "of": (float("inf"), 1.5)})) == {"loss": None, "of": [None, 1.5]}


def test_numbers_stay_numbers():
    assert [cell_of(value) for value in (-1, -0.5, None)] == [-1, -0.5, None]
