"""The versions that decide what memory a run takes."""

from __future__ import annotations

import platform
from importlib import metadata

PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate")


def environment() -> dict[str, str]:
    """Return the versions of Python and of the libraries."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}}
