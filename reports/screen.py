"""Whether what shows a report can draw over what it drew: a terminal can; a notebook, CI and a dumb terminal cannot."""

from __future__ import annotations

import os
from collections.abc import Mapping

from rich.console import Console

_KERNEL = ("JPY_PARENT_PID", "COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE", "DATABRICKS_RUNTIME_VERSION")
"""set by what starts a notebook's kernel, and inherited by its commands, which get a terminal that keeps every line"""
_OF_IPYKERNEL = {"TERM": "xterm-color", "PAGER": "cat", "CLICOLOR": "1"}
"""set by ipykernel itself, however it was started"""


def can_redraw(console: Console) -> bool:
    """Return whether lines that were printed can be replaced on the screen."""
    is_terminal = console.file.isatty() and not console.is_dumb_terminal
    return is_terminal and not in_notebook() and not in_ci()


def in_notebook(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether this process was started from a cell of a notebook."""
    started = any(name in environment for name in _KERNEL)
    return started or all(environment.get(name) == value for name, value in _OF_IPYKERNEL.items())


def in_ci(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether a service for continuous integration runs this."""
    return environment.get("CI", "").lower() not in ("", "0", "false")
