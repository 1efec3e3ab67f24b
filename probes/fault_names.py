"""The names of the faults, known without importing PyTorch, so that a wrong one is refused at once."""

from __future__ import annotations

from pathlib import Path

from memory_harness.configs.errors import ConfigError
from memory_harness.configs.tables import unknown_name

_FOLDER = Path(__file__).parent / "faults"
_NO_FAULTS = {"__init__", "__main__", "base", "run"}


def fault_names() -> list[str]:
    """Return the names of all faults in `probes/faults`: each is called as its file."""
    return sorted(path.stem.replace("_", "-") for path in _FOLDER.glob("*.py") if path.stem not in _NO_FAULTS)


def check_fault_name(name: str) -> None:
    """Refuse a name that no fault has.

    Raises:
        ConfigError: the name, and those allowed.
    """
    if name not in fault_names():
        raise ConfigError(unknown_name("--fault", name, fault_names()))
