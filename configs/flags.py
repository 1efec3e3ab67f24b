"""Fields of the configuration as flags: their names, their help, and the flags between two configurations."""

from __future__ import annotations

import ast
import dataclasses
import itertools
from typing import Any

from memory_harness.configs.schema import RunConfig, fields_of_sections
from memory_harness.configs.values import to_text


def flag_of(item: dataclasses.Field[Any]) -> str:
    """Return the flag of a field: `--max-length` of `max_length`, unless its metadata names another."""
    return item.metadata.get("flag") or "--" + item.name.replace("_", "-")


def flags_between(before: RunConfig, after: RunConfig) -> list[str]:
    """Return the flags that turn one configuration into the other."""
    flags: list[str] = []
    for section, item in fields_of_sections():
        old = getattr(getattr(before, section), item.name)
        new = getattr(getattr(after, section), item.name)
        if old != new and isinstance(new, bool):
            flags.append(flag_of(item) if new else flag_of(item).replace("--", "--no-", 1))
        elif old != new:
            flags += [flag_of(item), to_text(new, item)]
    return flags


def field_help(source: str) -> dict[tuple[str, str], str]:
    """Return the string under each annotated field of each class in the source, by class and field name."""
    texts = {}
    for cls in ast.walk(ast.parse(source)):
        if not isinstance(cls, ast.ClassDef):
            continue
        for statement, below in itertools.pairwise(cls.body):
            match statement, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    texts[cls.name, name] = text
    return texts
