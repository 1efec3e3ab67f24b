"""Libraries at exact versions, as `--against` names them, and the versions of each that this release supports."""

from __future__ import annotations

import re
from importlib import metadata
from typing import NamedTuple

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from memory_harness.configs.errors import ConfigError
from memory_harness.configs.tables import did_you_mean

SUPPORTED = {
    "torch": ">=2.11,<2.15",
    "transformers": ">=5.17,<6",
    "peft": ">=0.19",
    "bitsandbytes": ">=0.50",
    "accelerate": ">=1.10",
    "trl": ">=1.10",
}
"""the libraries that decide what memory a run takes; the ranges of `pyproject.toml`"""

FLAG = "--against"


def check_torch() -> None:
    """Refuse a PyTorch that this release does not know: installing never replaces the one that is there.

    Raises:
        ConfigError: it is missing or of another version.
    """
    try:
        found = metadata.version("torch")
    except metadata.PackageNotFoundError:
        raise ConfigError(f'torch: not installed; pip install "torch{SUPPORTED["torch"]}"') from None
    if not SpecifierSet(SUPPORTED["torch"]).contains(Version(found).base_version, prereleases=True):
        raise ConfigError(
            f"torch {found}: not supported, and left as it is (supported: torch{SUPPORTED['torch']}); install one from "
            "the index that this one came from, or make an environment of its own for the harness"
        )


class Pin(NamedTuple):
    """A library at one version."""

    name: str
    version: Version

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"


def read_pins(text: str) -> tuple[Pin, ...]:
    """Return the libraries that `transformers==5.17 peft==0.20` names, separated by spaces or commas.

    Raises:
        ConfigError: no name or no version, an unknown library, a version that is not supported, or one named twice.
    """
    pins = tuple(map(_read_pin, re.findall(r"[^\s,]+", text)))
    if not pins:
        raise ConfigError(f"{FLAG}: names no library (such as 'transformers==5.17')")
    names = [pin.name for pin in pins]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"{FLAG}: {twice[0]} is named more than once; give one version")
    return pins


def _read_pin(text: str) -> Pin:
    name, separator, version_text = text.partition("==")
    name = name.lower()
    if not separator:
        raise ConfigError(f"{FLAG} {text}: write NAME==VERSION without blanks, such as transformers==5.17")
    if name not in SUPPORTED:
        hint = did_you_mean(name, SUPPORTED) or f" (allowed: {', '.join(SUPPORTED)})"
        raise ConfigError(f"{FLAG} {text}: unknown library {name!r}{hint}")
    try:
        version = Version(version_text)
    except ValueError:  # an `InvalidVersion`, or a number of thousands of digits
        raise ConfigError(f"{FLAG} {text}: {version_text!r} is no exact version (such as 5.17 or 2.12.1)") from None
    if not SpecifierSet(SUPPORTED[name]).contains(version, prereleases=True):
        raise ConfigError(f"{FLAG} {text}: not supported (supported: {name}{SUPPORTED[name]})")
    return Pin(name, version)
