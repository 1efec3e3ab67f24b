"""A recipe's file: which program it is for, told by its content, and what it says."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from memory_harness.configs.errors import ConfigError
from memory_harness.configs.recipes import rules, unsloth
from memory_harness.configs.recipes.draft import Draft, Recipe, Target, tables

_ALLOWED = "allowed: axolotl, LLaMA-Factory or TRL YAML, TrainingArguments JSON, Python or notebook that calls Unsloth"
_READERS: Mapping[str, Callable[[Draft], None]] = {
    "axolotl": rules.read_axolotl,
    "LLaMA-Factory": rules.read_llamafactory,
    "TRL": rules.read_trl,
    "TRL configuration": rules.read_trl,
    "TrainingArguments": rules.read_trl,
}
"""in the order in which they are tried: some share keys"""


def import_recipe(path: Path, target: Target) -> Recipe:
    """Return what a recipe of another program says.

    Raises:
        ConfigError: the file cannot be read, or is no such recipe.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        content, is_json = _content(text, path.suffix in (".py", ".ipynb"))
        if isinstance(content, dict) and "cells" not in content:
            return _of_settings(path, dict(_flat(content)), is_json, target)
        return _of_program(path, text, content, target)
    except OSError as error:
        raise _refused(path, f"cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise _refused(path, "is no UTF-8 text") from None
    except (RecursionError, MemoryError):
        raise _refused(path, "is nested too deeply") from None
    except SyntaxError as error:
        raise _refused(path, f"line {error.lineno}: {error.msg}; {_ALLOWED}") from None


def _refused(path: Path, why: str) -> ConfigError:
    name = str(path) if len(str(path)) <= 50 else f"...{str(path)[-47:]}"
    return ConfigError(f"--import-recipe {name}: {' '.join(why.split())}")


def _content(text: str, is_program: bool) -> tuple[Any, bool]:
    """Return what a file holds, None for a program, and whether it is JSON. Raises SyntaxError: neither, nor YAML."""
    import yaml  # not for every --help

    try:
        return json.loads(text), True
    except ValueError:
        if is_program or any(f"{name}.from_pretrained" in text for name in unsloth.MODEL_CLASSES):
            return None, False
    try:
        return yaml.safe_load(text), False
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SyntaxError(f"no YAML ({error.problem})", ("", line, None, None)) from None
    except (yaml.YAMLError, ValueError) as error:
        raise SyntaxError(f"no YAML ({str(error)[:40]})", ("", 1, None, None)) from None


def _flat(content: Mapping[Any, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield settings by name, those in options as `options.name`."""
    for key, value in content.items():
        name = f"{above}{key}"
        if isinstance(value, dict) and value and name not in tables()["whole"]:
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def _of_settings(path: Path, values: Mapping[str, Any], is_json: bool, target: Target) -> Recipe:
    """Return the recipe that settings by name are."""
    programs = [name for name in _READERS if not values.keys().isdisjoint(tables()["programs"][name]["signs"])]
    if not programs:
        found = ", ".join(key[:20] for key in [*values][:3]) or "nothing"
        raise _refused(path, f"no recipe (found: {found}); {_ALLOWED}")
    # what is not JSON and of none of the others is TRL's command line's
    program = programs[0] if is_json or programs[0] in ("axolotl", "LLaMA-Factory") else "TRL"
    draft = Draft(values, program, target)
    _READERS[program](draft)
    return draft.finish(path)


def _of_program(path: Path, text: str, notebook: Any, target: Target) -> Recipe:
    """Return the recipe that the calls of Unsloth in a program or a notebook are. Raises SyntaxError: it is neither."""
    remarks: list[str] = []
    source = "\n".join(_cells(notebook, remarks)) if isinstance(notebook, dict) else text
    calls = unsloth.calls_in(ast.parse(source.replace("\0", "")), target)
    if not any(call.kind == "from_pretrained" for call in calls):
        raise _refused(path, f"no recipe; {_ALLOWED}")
    draft = Draft(unsloth.settings_of(calls), "Unsloth", target)
    draft.remarks += remarks
    unsloth.read_unsloth(draft, calls)
    return draft.finish(path)


def _cells(notebook: Mapping[str, Any], remarks: list[str]) -> Iterator[str]:
    """Yield the code of a notebook cell by cell, without the notebook's own commands."""
    cells = [cell for cell in notebook["cells"] if isinstance(cell, dict) and cell.get("cell_type") == "code"]
    for number, cell in enumerate(cells, 1):
        lines = "".join(cell.get("source", "")).splitlines()
        own = [line for line in lines if line.lstrip().startswith(("%", "!"))]
        source = "\n".join(line.replace(line.lstrip(), "pass") if line in own else line for line in lines)
        try:
            ast.parse(source)
        except SyntaxError:
            remarks.append(f"code cell {number} is no Python and was left out")
        else:
            yield source
