"""What a dry run took for what it cannot know, with the lines that asked: listed in its report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from memory_harness.harness.log.errors import HarnessError


@dataclass
class StandIns:
    """Stand-ins that were used, and what ended the run for want of one."""

    used: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(what, `file:line`) -> how often"""
    failure: HarnessError | None = None

    def add(self, what: str, where: Callable[[], str]) -> None:
        """Take note that something was stood in for."""
        self.used[what, where()] += 1
