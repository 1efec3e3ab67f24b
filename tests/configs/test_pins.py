"""Libraries at exact versions, as `--against` names them."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from memory_harness.configs.cli import parse_args
from memory_harness.configs.errors import ConfigError
from memory_harness.configs.pins import SUPPORTED, check_torch, read_pins
from memory_harness.configs.units import MIB, parse_increase

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "text",
    ["transformers==5.17 peft==0.20.0", "transformers==5.17,peft==0.20.0", " Transformers==5.17 , peft==0.20.0 "],
)
def test_names_and_versions_are_separated_by_spaces_or_commas(text):
    assert list(map(str, read_pins(text))) == ["transformers==5.17", "peft==0.20.0"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "names no library"),
        ("transformers", "write NAME==VERSION"),
        ("transformers=5.17", "write NAME==VERSION"),
        ("transformers>=5.17", "write NAME==VERSION"),
        ("transformers==", "no exact version"),
        ("transformers==5.17.*", "no exact version"),
        ("transformers==" + "9" * 5000, "no exact version"),
        ("transfomers==5.17", "did you mean transformers?"),
        ("numpy==2.0", "allowed: torch, transformers"),
        ("transformers==5.16.1", "supported: transformers>=5.17,<6"),
        ("transformers==6.0", "supported: transformers>=5.17,<6"),
        ("torch==2.15.0", "supported: torch>=2.11,<2.15"),
        ("torch==2.12.0 torch==2.13.0", "torch is named more than once"),
    ],
)
def test_what_is_not_usable_is_said_in_one_line(text, line):
    with pytest.raises(ConfigError) as error:
        read_pins(text)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_versions_of_this_release_are_those_that_it_is_installed_with():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["unsloth"]]
    by_name = {requirement.name: requirement.specifier for requirement in map(Requirement, asked)}
    assert by_name.pop("torch") == SpecifierSet(""), "pip must not replace the one that is there; check_torch judges it"
    for name, specifier in by_name.items():
        assert specifier == SpecifierSet(SUPPORTED.get(name, str(specifier))), name
    assert set(SUPPORTED) - {"torch"} <= set(by_name)


@pytest.mark.parametrize(("found", "is_supported"), [("2.13.0+cpu", True), ("2.8.0+cu126", False), ("3.0.0", False)])
def test_a_pytorch_that_this_release_does_not_know_is_refused_and_left(monkeypatch, found, is_supported):
    monkeypatch.setattr("importlib.metadata.version", lambda name: found)
    if is_supported:
        check_torch()
        return
    with pytest.raises(ConfigError, match=re.escape(f"torch {found}: not supported, and left as it is")):
        check_torch()


def test_an_increase_is_a_share_or_a_size():
    assert parse_increase("5%").of(200) == 10
    assert parse_increase(" 2.5 % ").of(1000) == 25
    assert parse_increase("100 MiB").of(7) == 100 * MIB
    assert parse_increase("0%").of(10**12) == 0
    for text in ("", "lots", "-5%", "5 %%", "-1 MiB"):
        with pytest.raises(ValueError, match="neither a percentage nor a size"):
            parse_increase(text)


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--fail-on-increase", "5%"], "--fail-on-increase: has no meaning beside a probe (goes with: --against)"),
        (["--against", "peft==0.20", "--fail-on-increase", "lots"], "--fail-on-increase lots: neither a percentage"),
        (["--against", "peft==0.20", "--train"], "--train and --against: each does something else"),
        (["--against", "peft==0.20", "--replay", "runs/x"], "--replay and --against: each does something else"),
        (["--against", "peft==0.20", "--goal", "speed"], "--goal: has no meaning beside --against"),
        (["--against", "peft==0.20", "--html", "a.html"], "--html: has no meaning beside --against"),
        (["--against", "peft==0.20", "--device", "cuda"], "--device cuda: --against simulates"),
        (["--against", "peft==0.20", "--compare", "a", "b"], "--compare and --against: each does something else"),
    ],
)
def test_what_does_not_go_with_it_is_refused(flags, line):
    with pytest.raises(ConfigError) as error:
        parse_args(flags)
    assert line in str(error.value)


def test_it_goes_with_a_probe_and_with_a_dry_run():
    assert parse_args(["--against", "peft==0.20", "--json", "a.json"]).against == "peft==0.20"
    assert parse_args(["--against", "peft==0.20", "--dry-run", "a.py", "--", "--epochs", "1"]).dry_run == "a.py"
