"""A recipe while it is read: each key of its file is taken, not expressed or without effect, and none gets lost."""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import itertools
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from memory_harness.configs.optimizers import OPTIMIZERS
from memory_harness.configs.schema import SECTIONS, fields_of_sections
from memory_harness.configs.tables import read_toml
from memory_harness.configs.validation import RANGES
from memory_harness.configs.values import NONE, from_toml, to_text, without_none


class Refused(NamedTuple):
    """The value of a setting that no field says, and what stands in for it or why there is none."""

    value: Any
    why: str = ""


class Target(NamedTuple):
    """What a recipe is read for: a card, the type of 16 bits that it is best at, and whether weights are wanted."""

    card: str
    half: str
    exact_model: bool = False


@dataclass(frozen=True)
class Recipe:
    """What a recipe of another program says in fields of the schema, and what of it they cannot say."""

    file: Path
    program: str
    fields: Mapping[str, Any]
    """of the schema; what the file leaves out is as the program has it"""
    taken: Mapping[str, Any]
    """settings of the file, by key, that became fields"""
    not_expressed: Mapping[str, Refused]
    """others of it, and defaults of the program, that no field says"""
    without_effect: tuple[str, ...]
    remarks: tuple[str, ...]


class Draft:
    """A recipe while it is read. Settings go by the names of `tables.toml`, keys by those of the file."""

    def __init__(self, values: Mapping[str, Any], program: str, target: Target) -> None:
        self.values, self.program, self.target = values, program, target
        base, own = tables()["programs"]["TrainingArguments"], tables()["programs"][program]
        self.defaults: dict[str, Any] = base["defaults"] | own["defaults"]
        self.fields: dict[str, Any] = {}
        self.remarks: list[str] = [own["remark"]] if "remark" in own else []
        self._names: dict[str, list[str]] = base["names"] | own["names"]
        self._said = {key: value for key, value in values.items() if not isinstance(value, (Refused, type(None)))}
        self._taken: dict[str, Any] = {}
        self._refused: dict[str, Refused] = {}
        self._idle: set[str] = set()

    def gives(self, name: str) -> bool:
        """Return whether the recipe says a setting; null and what only runs know say nothing."""
        return self._key(name) in self._said

    def get(self, name: str) -> Any:
        """Return a setting: the recipe's, or the program's default."""
        return self._said.get(self._key(name), self.defaults.get(name))

    def put(self, field: str, value: Any, *names: str) -> None:
        """Set a field to what settings say; where it takes no such value, they are not expressed, a default neither."""
        try:
            self.fields[field] = _fitted(field, value)
        except ValueError:
            item, _ = _fields()[field]
            standing = to_text(self.fields.get(field, item.default), item)
            for name in [name for name in names if self.gives(name)] or names[:1]:
                self.refuse(name, f"{field}={standing} stands in")
        else:
            self.take(*names)

    def take(self, *names: str) -> None:
        """List settings as taken, where the recipe gives them and they are not listed as not expressed."""
        for name in names:
            keys = [key for key in self._names.get(name, [name]) if key in self._said and key not in self._refused]
            self._taken |= {key: self.values[key] for key in keys if self.values[key] == self.get(name)}

    def refuse(self, name: str, why: str) -> None:
        """List a setting as not expressed; as the program's default where the recipe does not give it."""
        key = self._key(name)
        self._taken.pop(key, None)
        self._refused[key] = Refused(self.get(name), why if self.gives(name) else f"the default; {why}")

    def skip(self, *names: str) -> None:
        """List settings as without effect, where they are not listed as something else."""
        self._idle |= {self._key(name) for name in names}

    def finish(self, file: Path) -> Recipe:
        """Return the recipe; of what was not read, what may have an effect is not expressed."""
        idle = []
        for key, value in self.values.items():
            if key in self._taken or key in self._refused:
                continue
            if _is_idle(key, value) or (key in self._idle and not isinstance(value, Refused)):
                idle.append(key)
            else:
                self._refused[key] = value if isinstance(value, Refused) else Refused(value)
        return Recipe(file, self.program, self.fields, self._taken, self._refused, tuple(idle), tuple(self.remarks))

    def _key(self, name: str) -> str:
        """Return under which key the recipe has a setting; the first that it could be under where it has none."""
        keys = self._names.get(name, [name])
        return next((key for key in keys if key in self._said), keys[0])


@functools.cache
def tables() -> dict[str, Any]:
    """Return what `tables.toml` holds."""
    return read_toml(Path(__file__).with_name("tables.toml"))


def _fitted(field: str, value: Any) -> Any:
    """Return a value, or what the schema calls it, as the field has it. Raises ValueError: it takes no such value."""
    item, hint = _fields()[field]
    named = tables()["values"].get(field, {}).get(str(value).lower(), value)
    fitted = from_toml(_of_type(named, without_none(hint)[0]), hint, item)
    is_outside = fitted is not None and field in RANGES and not RANGES[field][1](fitted)
    is_pattern = field == "target_modules" and re.fullmatch(r"[\w.-]+", "".join(fitted)) is None
    if is_outside or is_pattern or (field == "optimizer" and fitted not in OPTIMIZERS):
        raise ValueError(f"{field} takes no {fitted}")
    return fitted


def _of_type(value: Any, kind: Any) -> Any:
    """Return a value as TOML has it: YAML reads 2e-4 as a text, and programs take 3.0 for a whole number."""
    if kind in (int, float) and isinstance(value, (str, float)):
        number = float(value)
        return int(number) if kind is int and number.is_integer() else number
    if kind is str and isinstance(value, dict):
        return ",".join(f"{key}={option}" for key, option in value.items())
    if typing.get_origin(kind) is tuple and isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return NONE if value is None else value


@functools.cache
def _fields() -> dict[str, tuple[dataclasses.Field[Any], Any]]:
    """Return each field of the schema with its type."""
    hints = {section: typing.get_type_hints(cls) for section, cls in SECTIONS.items()}
    return {item.name: (item, hints[section][item.name]) for section, item in fields_of_sections()}


def _is_idle(key: str, value: Any) -> bool:
    """Return whether a key that nothing reads is without effect: by `tables.toml`, or as it asks for nothing."""
    patterns = itertools.chain.from_iterable(group["keys"] for group in tables()["without_effect"])
    is_usual = tables()["usual"].get(key, value is None) == value
    return is_usual or value in (None, False, 0, "", [], {}) or any(fnmatch.fnmatchcase(key, part) for part in patterns)
