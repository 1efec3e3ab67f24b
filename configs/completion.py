"""Completion of flags and their values in a shell: shtab writes the script from the parser."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from memory_harness.configs.cards import load_cards
from memory_harness.configs.errors import ConfigError
from memory_harness.configs.models import load_models
from memory_harness.configs.preset import preset_names
from memory_harness.configs.program import INSTALLED

SHELLS = ("bash", "zsh", "tcsh")


def completion_script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return the script that a shell reads to complete this program's command line.

    Raises:
        ConfigError: shtab is not installed, or writes none for such a shell.
    """
    if shell not in SHELLS:
        raise ConfigError(f"--completion {shell}: unknown (allowed: {', '.join(SHELLS)})")
    try:
        import shtab
    except ImportError:
        raise ConfigError("--completion: needs the package shtab; pip install shtab") from None
    names: dict[str, Iterable[str]] = {
        "--gpu": load_cards(),
        "--model": load_models(),
        "--preset": preset_names(),
        "--completion": SHELLS,
    }
    for action in parser._actions:
        flag, metavar = action.option_strings[0], str(action.metavar or "")
        if flag in names:
            action.choices = list(names[flag])
        elif metavar.startswith("{"):
            action.choices = metavar.strip("{}").split(",")
        elif {"FILE", "LOG", "SCRIPT", "RUN", "DIR"} & set(metavar.split("|")):
            action.complete = shtab.FILE  # type: ignore[attr-defined] # shtab's own way of saying it
    parser.prog = INSTALLED
    return str(shtab.complete(parser, shell))
