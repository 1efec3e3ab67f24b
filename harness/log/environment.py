"""The versions that decide what memory a run takes."""

from __future__ import annotations

import platform
import sys
from importlib import metadata

PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate")

PATCHING = ("unsloth", "unsloth_zoo", "trl")  # libraries that change how those above run, once they are imported


def environment() -> dict[str, str]:
    """Return the versions of Python and of the libraries."""
    names = (*PACKAGES, *(name for name in PATCHING if name in sys.modules))
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}
