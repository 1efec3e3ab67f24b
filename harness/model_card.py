"""The README of a saved adapter; never imports torch."""

from __future__ import annotations

from pathlib import Path

from harness.runlog import RunLog


def write_model_card(folder: Path, log: RunLog) -> None:
    """Write `README.md` beside the adapter: what it is of, how it was trained, what it scores, how to load it.

    Raises:
        OSError: the folder cannot be written.
    """
    raise NotImplementedError
