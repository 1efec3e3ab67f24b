"""A recipe's file: which program it is for, told by its content, and what it says."""

from __future__ import annotations

import ast
import fnmatch
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from memory_harness.configs.errors import ConfigError
from memory_harness.configs.inputs import read_text
from memory_harness.configs.recipes import rules, unsloth
from memory_harness.configs.recipes.draft import Draft, Recipe, Target, tables

_ALLOWED = "allowed: YAML of axolotl, LLaMA-Factory or TRL, JSON of TrainingArguments, Python with Unsloth or TRL"


MAX_SETTINGS = 5000
"""More than any recipe says: TrainingArguments has two hundred."""
_BOOLEANS = {"true": True, "false": False}
"""Texts that programs read so, or mean so where they do not: what asks for no 4 bits gets none."""
MAX_PARTS = 100_000
"""The same of all that lists hold too, such as the log in the state of a trainer."""


def import_recipe(path: Path, target: Target) -> Recipe:
    """Return what a recipe of another program says. Raises ConfigError: it cannot be read, or is no such recipe."""
    try:
        text = read_text(path).removeprefix("\ufeff")
        content, is_json = _content(path, text)
        if isinstance(content, dict) and not isinstance(content.get("cells"), list):
            num_parts = sum(1 for _ in islice(_parts(content), MAX_PARTS + 1))  # aliases of aliases can say a billion
            settings = list(islice(_flat(content), MAX_SETTINGS + 1))
            if len(settings) > MAX_SETTINGS or num_parts > MAX_PARTS:
                raise _refused(path, f"says more than {MAX_SETTINGS} settings; {_ALLOWED}")
            values = {name: _BOOLEANS.get(str(value).lower(), value) for name, value in settings}
            return _of_settings(path, values, is_json, target)
        return _of_program(path, text, content, target)
    except (OSError, UnicodeDecodeError) as error:
        raise _refused(path, f"cannot be read ({getattr(error, 'strerror', 'no UTF-8 text')})") from None
    except (SyntaxError, RecursionError, MemoryError) as error:
        what = getattr(error, "msg", "nested too deeply")[:30]
        raise _refused(path, f"no recipe (line {getattr(error, 'lineno', 1)}: {what}); {_ALLOWED}") from None


def _refused(path: Path, why: str) -> ConfigError:
    return ConfigError(f"--import-recipe {str(path)[-40:]}: {' '.join(why.split())}")


def _content(path: Path, text: str) -> tuple[Any, bool]:
    """Return what a file holds, None for a program, and whether it is JSON; else it is YAML."""
    import yaml  # not for every --help

    try:
        return json.loads(text), True
    except ValueError:
        if path.suffix in (".py", ".ipynb") or re.search(r"\bFast\w*Model\.from_pretrained\(", text):
            return None, False
    try:
        return yaml.safe_load(text), False
    except (yaml.YAMLError, ValueError) as error:
        raise _refused(path, f"no YAML ({' '.join(str(error).split())[:80]})") from None


def _parts(value: Any) -> Iterator[Any]:
    """Yield a value and all that is in it, as often as it is named."""
    yield value
    if isinstance(value, (dict, list)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _parts(part)


def _flat(content: Mapping[Any, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield settings by name, those in options as `options.name`."""
    for key, value in content.items():
        name = f"{above}{key}"
        if isinstance(value, dict) and value and name not in tables()["whole"]:
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def _of_settings(path: Path, values: Mapping[str, Any], is_json: bool, target: Target) -> Recipe:
    """Return the recipe that settings by name are; YAML that is none of the others' is of TRL's command line."""
    for pattern, owner in tables()["foreign"].items():
        if fnmatch.filter(values, pattern):
            raise _refused(path, f"is of {owner}, which is not read; {_ALLOWED}")
    programs = [name for name, it in tables()["programs"].items() if not values.keys().isdisjoint(it["signs"])]
    if not programs:
        raise _refused(path, f"no recipe (it holds {', '.join(values)[:40] or 'nothing'}); {_ALLOWED}")
    program = programs[0] if is_json or programs[0] in ("axolotl", "LLaMA-Factory") else "TRL"
    draft = Draft(values, program, target)
    {"axolotl": rules.read_axolotl, "LLaMA-Factory": rules.read_llamafactory}.get(program, rules.read_trl)(draft)
    return draft.finish(path)


def _of_program(path: Path, text: str, notebook: Any, target: Target) -> Recipe:
    """Return the recipe that the calls of Unsloth in a program or a notebook are. Raises SyntaxError: it is neither."""
    remarks: list[str] = []
    source = "\n".join(_cells(notebook, remarks)) if isinstance(notebook, dict) else text
    calls = unsloth.calls_in(_parsed(source.replace("\0", "")), target)
    remarks += unsloth.conditions_of(calls)
    if not any(call.kind == "from_pretrained" for call in calls):
        return _of_trl(path, calls, remarks, target)
    draft = Draft(dict(_flat(unsloth.settings_of(calls))), "Unsloth", target)
    draft.remarks += remarks
    unsloth.read_unsloth(draft, calls)
    return draft.finish(path)


def _of_trl(path: Path, calls: Sequence[unsloth.Call], remarks: Sequence[str], target: Target) -> Recipe:
    """Return the recipe that the calls of TRL and transformers in a program are."""
    settings = unsloth.settings_of_trl(calls)
    if "trainer" not in settings:
        raise _refused(path, f"no recipe; {_ALLOWED}")
    is_plain = not any(call.name in tables()["unsloth"]["configs_of_trl"] for call in calls)
    program = "TrainingArguments" if is_plain and settings["trainer"] == "Trainer" else "TRL configuration"
    draft = Draft(dict(_flat(settings)), program, target)
    draft.remarks += remarks
    if isinstance(settings.get(f"{settings['trainer']}.model"), str):
        draft.defaults["dtype"] = "float32"  # Source: trl 1.16, trainer/utils.py, `create_model_from_path`
    rules.read_trl(draft)
    return draft.finish(path)


def _parsed(source: str) -> ast.Module:
    """Return a program's syntax; one that was saved from a notebook may have the notebook's commands in it."""
    try:
        return ast.parse(source)
    except SyntaxError:
        return ast.parse(_without_commands(source))


def _without_commands(source: str) -> str:
    lines = source.splitlines()
    own = [line for line in lines if line.lstrip().startswith(("%", "!"))]
    return "\n".join(line.replace(line.lstrip(), "pass") if line in own else line for line in lines)


def _cells(notebook: Mapping[str, Any], remarks: list[str]) -> Iterator[str]:
    """Yield the code of a notebook cell by cell, without the notebook's own commands."""
    cells = [cell for cell in notebook["cells"] if isinstance(cell, dict) and cell.get("cell_type") == "code"]
    sources = [cell["source"] for cell in cells if isinstance(cell.get("source"), (str, list))]
    for number, given in enumerate(sources, 1):
        source = _without_commands("".join(map(str, given)))
        try:
            ast.parse(source)
        except SyntaxError:
            remarks.append(f"code cell {number} is no Python and was left out")
        else:
            yield source
