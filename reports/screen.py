"""What shows a report: whether it can draw over what it drew; and text that it would obey."""

from __future__ import annotations

import os
from collections.abc import Mapping

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderResult
from rich.segment import Segment

from memory_harness.configs.printable import printable

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


class Printable:
    """Something to print, without what a terminal would obey."""

    def __init__(self, content: RenderableType) -> None:
        self._content = content

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._content, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


class _Cleaning:
    """What rich calls before it prints."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Return what is printed in their place."""
        return [Printable(content) for content in renderables]


def cleaned(console: Console) -> Console:
    """Let a console print nothing that a terminal would obey, but for its own colours."""
    console.push_render_hook(_Cleaning())  # type: ignore[arg-type]
    return console
