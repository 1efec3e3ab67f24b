"""What became of another program's recipe: which settings were taken, which cannot be said, which mean nothing."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console, Group
from rich.padding import Padding
from rich.text import Text

from memory_harness.configs.recipes.draft import Recipe
from memory_harness.reports.terminal import show
from memory_harness.reports.text import plural

LONGEST_VALUE = 40  # characters of a value that are shown


def print_recipe(recipe: Recipe, console: Console) -> None:
    """Print it in a few lines."""
    first, *others = recipe_lines(recipe)
    show(Group(Text(first), *(Padding(Text(line), (0, 0, 0, 2)) for line in others), Text()), console)


def recipe_lines(recipe: Recipe) -> list[str]:
    """Return it in lines; the first names the file and the program."""
    lines = [f"recipe {recipe.file}: {recipe.program}; {plural(len(recipe.taken), 'setting')} taken"]
    refused = []
    for key, (value, why) in recipe.not_expressed.items():
        refused.append(f"{key}={_shown(value)}{f' ({why})' if why else ''}")
    lines.append(f"not expressed: {', '.join(refused) or 'nothing'}")
    lines.append(f"without effect on memory: {', '.join(recipe.without_effect) or 'nothing'}")
    return lines + [f"note: {remark}" for remark in recipe.remarks]


def recipe_json(recipe: Recipe) -> dict[str, Any]:
    """Return it as plain data."""
    content = {
        "file": str(recipe.file),
        "program": recipe.program,
        "fields": recipe.fields,
        "taken": recipe.taken,
        "not_expressed": {key: refused._asdict() for key, refused in recipe.not_expressed.items()},
        "without_effect": recipe.without_effect,
        "notes": recipe.remarks,
    }
    plain: dict[str, Any] = json.loads(json.dumps(content, default=str))  # YAML has dates
    return plain


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."
