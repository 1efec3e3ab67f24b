"""What the markers of a test say, and what is wrong with them."""

import inspect

import pytest

from memory_harness.configs.errors import ConfigError
from memory_harness.harness.log.records import Phase
from memory_harness.probes.budgets.limits import FIXTURE, READERS, Budget, LeakLimit, Limit


def read_limits(item: pytest.Item) -> tuple[list[Limit], list[str]]:
    """Return the limits of a test, of each phase the closest marker's, and what is wrong with its markers."""
    limits: dict[tuple[str, Phase | None], Limit] = {}
    problems = []
    for name, reader in READERS.items():
        for marker in item.iter_markers(name):
            try:
                limit = reader(*marker.args, **marker.kwargs)
            except (ConfigError, TypeError) as error:
                problems.append(f"{name}: {str(error).removeprefix(f'{name}() ')}")
                continue
            phase = limit.phase if isinstance(limit, Budget) else None
            limits.setdefault((name, phase), limit)
    found = list(limits.values())
    if len({(limit.device, limit.gpu) for limit in found}) > 1:
        problems.append("the markers name different devices or cards; one test measures on one")
    return found, problems + _unsuitable(item, found)


def _unsuitable(item: pytest.Item, limits: list[Limit]) -> list[str]:
    """Return what cannot be asked of this test."""
    uses_fixture = FIXTURE in getattr(item, "fixturenames", ())
    problems = []
    if not isinstance(item, pytest.Function) or inspect.iscoroutinefunction(item.function):
        problems.append("memory markers are for test functions that are not async")
    if any(isinstance(limit, Budget) and limit.phase for limit in limits) and not uses_fixture:
        problems.append(f"memory_budget: phase needs the fixture {FIXTURE}, through which a test names its phases")
    if any(isinstance(limit, LeakLimit) for limit in limits) and uses_fixture:
        problems.append(f"memory_leak repeats the whole test; with {FIXTURE}, call the function: call(f, steps=20)")
    return problems
