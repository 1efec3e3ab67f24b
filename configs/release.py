"""Which release this is, and those of the libraries that its numbers rest on."""

from __future__ import annotations

import platform
import tomllib
from importlib.metadata import PackageNotFoundError, version

from memory_harness.configs.places import IMPORT_FOLDER

DISTRIBUTION = "qlora-memory-harness"
LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "trl")


def release() -> str:
    """Return the release of the harness: a checkout's own, else that of the installed distribution."""
    project = IMPORT_FOLDER / "pyproject.toml"
    if project.is_file():
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])
    return version(DISTRIBUTION)


def versions() -> str:
    """Return the release, and what it runs on, in two lines."""
    found = [f"Python {platform.python_version()}"]
    for name in LIBRARIES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} not installed")
    return f"{DISTRIBUTION} {release()}\n{', '.join(found)}"
