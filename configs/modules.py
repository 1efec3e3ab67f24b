"""Finding the file of a module as `python -m MODULE` would, without importing its packages."""

from __future__ import annotations

import os
import sys
from importlib.machinery import ModuleSpec, PathFinder


def runnable_module(name: str) -> tuple[str, str | None]:
    """Return the name of what runs, which is `__main__` of a package, and its source file; None where there is none."""
    spec = _found(name)
    if spec is not None and spec.submodule_search_locations is not None:
        name = f"{name}.__main__"
        spec = _found(name)
    is_source = spec is not None and spec.has_location and str(spec.origin).endswith(".py")
    return name, spec.origin if spec is not None and is_source else None


def _found(name: str) -> ModuleSpec | None:
    places: list[str] | None = [os.getcwd(), *sys.path[1:]]
    spec = None
    parts = name.split(".")
    for number in range(len(parts)):
        spec = PathFinder.find_spec(".".join(parts[: number + 1]), places)
        if spec is None:
            return None
        found = spec.submodule_search_locations
        places = None if found is None else list(found)
        if places is None and number + 1 < len(parts):
            return None
    return spec
