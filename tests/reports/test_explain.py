"""`--explain`: every cause in full, the list, and an id that does not exist."""

import io
import subprocess
import sys

import pytest

from memory_harness.configs.cli import ALL_CAUSES, parse_args
from memory_harness.configs.errors import ConfigError
from memory_harness.probes.detectors.causes import UNEXPLAINED, load_causes
from memory_harness.probes.findings import UNEXPLAINED_GROWTH
from memory_harness.reports.explain import print_explanation
from memory_harness.reports.terminal import make_console


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in ("COLUMNS", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


def explained(cause_id, encoding="utf-8"):
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, newline="\n")
    print_explanation(cause_id, make_console(file))
    file.flush()
    return raw.getvalue().decode(encoding)


def words(text):
    return " ".join(text.split())


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("cause", [*load_causes().values(), UNEXPLAINED], ids=lambda cause: cause.id)
def test_a_cause_is_explained_in_full_at_80_columns(cause, encoding):
    text = explained(cause.id, encoding)
    assert text.startswith(cause.id + "\n")
    assert max(map(len, text.splitlines())) <= 80
    for part in (cause.title, cause.looks_like, cause.decisive_test, cause.fix, *cause.known_from):
        # columns interleave nothing: the second one only wraps
        assert words(part) in words(text)


def test_fixes_that_address_a_cause_are_named():
    assert "chunked-loss" in explained("logits-fp32-copies")


def test_the_list_names_every_cause_and_the_last_resort():
    lines = explained(ALL_CAUSES).splitlines()
    assert {line.split()[0] for line in lines if line[0] != " "} == {*load_causes(), UNEXPLAINED_GROWTH}


def test_an_unknown_cause_is_one_clear_line():
    with pytest.raises(ConfigError, match="did you mean fragmentation") as caught:
        explained("fragmentaton")
    assert len(caught.value.problems) == 1
    assert "--explain fragmentaton" in caught.value.problems[0]


def test_the_flag_takes_a_cause_or_nothing():
    assert parse_args([]).explain is None
    assert parse_args(["--explain"]).explain == ALL_CAUSES
    assert parse_args(["--explain", "fragmentation"]).explain == "fragmentation"


def test_explaining_never_brings_torch_in():
    heavy = {"torch", "transformers", "peft", "bitsandbytes", "pandas"}
    code = f"import sys, reports.explain; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
