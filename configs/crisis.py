"""The vetted reply to questions of self-harm: its words, the phrases that call for it, and whom to phone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from memory_harness.configs.errors import ConfigError
from memory_harness.configs.tables import read_toml


@dataclass(frozen=True)
class HelpNumber:
    """Whom to phone."""

    name: str
    number: str
    checked: date
    """the day on which `source` named the number"""
    source: str


@dataclass(frozen=True)
class Crisis:
    """What is said in place of the model, and when."""

    reply: str
    phrases: tuple[str, ...]
    """plain text, on top of the patterns that cleaning knows"""
    numbers: tuple[HelpNumber, ...]
    approved_by: str
    """who has vetted the words; empty where nobody has"""

    @property
    def text(self) -> str:
        """The whole reply, the numbers below it."""
        numbers = [f"{entry.name}: {entry.number}" for entry in self.numbers]
        return "\n".join([self.reply, *numbers])


def load_crisis(path: str | None = None) -> Crisis:
    """Return the vetted reply in a TOML file, or the one that comes with the harness.

    Raises:
        ConfigError: the file cannot be read, or something in it is missing or of the wrong kind; all problems at once.
    """
    file = Path(__file__).with_name("crisis.toml") if path is None else Path(path)
    try:
        table = read_toml(file)
    except ConfigError as error:
        raise ConfigError(f"--crisis {file}: {error}") from None
    problems = _problems(table) + _number_problems(table.get("numbers"))
    if problems:
        raise ConfigError([f"--crisis {file}: {problem}" for problem in problems])
    numbers = tuple(HelpNumber(**entry) for entry in table["numbers"])
    return Crisis(table["reply"].strip(), tuple(table["phrases"]), numbers, table["approved_by"])


def _problems(table: dict[str, Any]) -> list[str]:
    problems = []
    for key, kind, words in (
        ("reply", str, "a text"),
        ("approved_by", str, "a text"),
        ("phrases", list, "a list"),
        ("numbers", list, "tables [[numbers]]"),
    ):
        if not isinstance(table.get(key), kind):
            problems.append(f"{key} is missing or not {words}")
    if isinstance(table.get("reply"), str) and not table["reply"].strip():
        problems.append("reply is empty")
    if not all(isinstance(phrase, str) and phrase.strip() for phrase in table.get("phrases") or []):
        problems.append("phrases holds something that is not a text, or a blank one")
    return problems


def _number_problems(entries: Any) -> list[str]:
    kinds = {"name": str, "number": str, "checked": date, "source": str}
    problems = []
    if isinstance(entries, list):
        for position, entry in enumerate(entries, 1):
            has_fields = isinstance(entry, dict) and set(entry) == set(kinds)
            if not has_fields or not all(isinstance(entry[key], kind) for key, kind in kinds.items()):
                needed = "name, number and source as texts, checked as a date, and nothing else"
                problems.append(f"number {position} needs {needed}")
    return problems
